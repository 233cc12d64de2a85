// Texts of the home page.
export default {
  en: {
    "home.title": "Trainings",
    "home.new": "New training",
    "home.runs": "Latest runs",
    "home.empty": "No run yet",
    "home.empty.text":
      "Start your first training. Without images of your own, bin/sample_data.py makes a data set.",
  },
  ko: {
    "home.title": "학습",
    "home.new": "새 학습",
    "home.runs": "최근 실행",
    "home.empty": "아직 실행이 없습니다",
    "home.empty.text":
      "첫 학습을 시작하세요. 이미지가 없으면 bin/sample_data.py가 데이터 세트를 만듭니다.",
  },
};
