// Texts of the comparison of runs.
export default {
  en: {
    "compare.title": "Compare",
    "compare.heading": "Comparison of {n} runs",
    "compare.empty": "No runs selected",
    "compare.few": "Select two to ten runs in the list of runs, then press Compare.",
    "compare.choose": "Choose runs",
    "compare.other": "Choose other runs",
    "difference.title": "Is the difference real?",
    "difference.about":
      "Compares two runs image by image on the same validation images: the 95 % interval of the "
      + "difference is narrower than those of the two scores.",
    "difference.start": "Compute the difference",
    "difference.first": "First run",
    "difference.second": "Second run",
    "difference.and": "and",
    "difference.busy": "Comparing the predictions of both runs",
    "difference.same": "Choose two different runs.",
    "difference.tasks": "Choose two runs of the same task: other scores cannot be compared.",
    "difference.points": "{n} points",
    "difference.bar": "difference {difference}, 95 % interval {low} to {high}",
    "difference.text":
      "{label} of {a} minus {b}: {difference}, 95 % interval {low} to {high}, paired over {n} "
      + "images.",
  },
  ko: {
    "compare.title": "비교",
    "compare.heading": "실행 {n}개 비교",
    "compare.empty": "선택한 실행이 없습니다",
    "compare.few": "실행 목록에서 2~10개를 고른 뒤 비교를 누르세요.",
    "compare.choose": "실행 고르기",
    "compare.other": "다른 실행 고르기",
    "difference.title": "차이가 실제로 있을까요?",
    "difference.about":
      "같은 검증 이미지에서 두 실행을 이미지마다 비교합니다. 그래서 차이의 95 % 구간은 두 점수의 "
      + "구간보다 좁습니다.",
    "difference.start": "차이 계산",
    "difference.first": "첫째 실행",
    "difference.second": "둘째 실행",
    "difference.and": "과(와)",
    "difference.busy": "두 실행의 예측을 비교하는 중",
    "difference.same": "서로 다른 실행을 고르세요.",
    "difference.tasks": "같은 태스크의 실행 두 개를 고르세요. 태스크가 다르면 점수를 비교할 수 없습니다.",
    "difference.points": "{n} %p",
    "difference.bar": "차이 {difference}, 95 % 구간 {low} ~ {high}",
    "difference.text":
      "{label}: {a} 빼기 {b} = {difference}, 95 % 구간 {low} ~ {high}, 이미지 {n}개를 짝지어 계산.",
  },
};
