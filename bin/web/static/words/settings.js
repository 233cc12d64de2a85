// Help in Korean for the settings that matter first; the others have their English help.
export default {
  en: {},
  ko: {
    "help.preset": "다른 설정의 기본값을 정하는 이 태스크의 프리셋.",
    "help.from_scratch": "무작위 가중치로 시작합니다. model은 구조만 정합니다.",
    "help.epochs": "학습 길이: 학습 이미지를 모두 보는 횟수. steps 대신 씁니다.",
    "help.batch_size": "모든 프로세스를 합해 최적화 한 스텝에 쓰는 샘플 수.",
    "help.lr": "워밍업이 끝날 때의 학습률.",
    "help.image_size": "학습 이미지 한 변의 픽셀 수. 비우면 모델의 크기.",
    "help.rand_augment_ops": "이미지마다 적용하는 RandAugment 연산 수. 0이면 끕니다.",
    "help.strong_share": "강한 데이터 증강을 쓰는 학습 구간의 비율. 그 뒤에는 가장 좋은 체크포인트에서 이어집니다.",
    "help.scale_min": "무작위 배율의 최솟값. 1이면 이미지 전체를 잘라 낼 영역에 맞춥니다.",
    "help.patch_size": "학습에 쓰는 조각 한 변의 입력 픽셀 수. 비우면 모델의 크기.",
    "help.scale": "각 변을 확대하는 배율, 1에서 8까지. 비우면 모델의 배율.",
    "help.eval_every": "평가 사이의 스텝 수. 0이면 끝에서만. 비우면 한 에포크, 긴 학습은 전체의 20분의 1.",
    "help.precision": "순전파의 자료형. 가중치는 언제나 fp32. auto는 이 컴퓨터에서 빠른 것을 고릅니다.",
    "help.seed": "새 가중치, 샘플 순서, 데이터 증강, 잡음의 시드.",
  },
};
