// Texts of the data page.
import newWords, { shared } from "./new.js";

// Returns the texts of a new training that tell the layouts.
function layouts(texts) {
  return Object.fromEntries(Object.entries(texts).filter(([key]) => key.startsWith("new.layout.")));
}

export default {
  en: {
    ...shared.en,
    ...layouts(newWords.en),
    "data.title": "Data sets",
    "data.roots": "Below {roots}",
    "data.train": "Train on it",
    "data.none": "No data set yet",
    "data.none.text":
      "Put a folder with images below the data folder, or make sample data in a terminal:",
    "data.layouts": "How a data set is laid out",
  },
  ko: {
    ...shared.ko,
    ...layouts(newWords.ko),
    "data.title": "데이터 세트",
    "data.roots": "{roots} 아래",
    "data.train": "이 데이터로 학습",
    "data.none": "아직 데이터 세트가 없습니다",
    "data.none.text":
      "데이터 폴더에 이미지 폴더를 넣거나, 터미널에서 예제 데이터를 만드세요.",
    "data.layouts": "데이터 세트의 구조",
  },
};
