document.querySelector("main").textContent = "visionloop";
