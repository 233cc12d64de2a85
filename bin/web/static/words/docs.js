// Texts of the page about the API.
export default {
  en: {
    "docs.title": "API",
    "docs.heading": "API of the studio",
    "docs.text":
      "Everything that these pages do is a call of this API. A program sends the token of the "
      + "server; every call that changes something has the header X-Visionloop. Errors are problem "
      + "objects (RFC 9457) with code, field and hint. The description is at /api/openapi.json.",
    "docs.search": "Search the endpoints",
    "docs.tags": "Groups of endpoints",
    "docs.types": "Types",
    "docs.name": "Name",
    "docs.type": "Type",
    "docs.about": "Meaning",
    "docs.required": "required",
    "docs.in.path": "in the path",
    "docs.in.query": "in the query",
    "docs.in.header": "header",
    "docs.in.cookie": "cookie",
    "docs.parameters": "Parameters",
    "docs.body": "Body",
    "docs.responses": "Responses",
    "docs.problem": "a problem object with code, field and hint",
    "docs.example": "Example",
  },
  ko: {
    "docs.title": "API",
    "docs.heading": "스튜디오 API",
    "docs.text":
      "이 페이지가 하는 모든 일은 이 API의 호출입니다. 프로그램은 서버의 토큰을 보내고, 무엇을 바꾸는 호출은 "
      + "X-Visionloop 헤더를 보냅니다. 오류는 code, field, hint가 있는 문제 객체(RFC 9457)입니다. "
      + "설명은 /api/openapi.json에 있습니다.",
    "docs.search": "엔드포인트 검색",
    "docs.tags": "엔드포인트 그룹",
    "docs.types": "타입",
    "docs.name": "이름",
    "docs.type": "타입",
    "docs.about": "뜻",
    "docs.required": "필수",
    "docs.in.path": "경로",
    "docs.in.query": "쿼리",
    "docs.in.header": "헤더",
    "docs.in.cookie": "쿠키",
    "docs.parameters": "매개변수",
    "docs.body": "본문",
    "docs.responses": "응답",
    "docs.problem": "code, field, hint가 있는 문제 객체",
    "docs.example": "예",
  },
};
