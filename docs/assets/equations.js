// KaTeX sets what Markdown marked as an equation.
document.addEventListener("DOMContentLoaded", () => {
  for (const equation of document.querySelectorAll(".arithmatex")) {
    renderMathInElement(equation, {
      delimiters: [
        { left: "\\(", right: "\\)", display: false },
        { left: "\\[", right: "\\]", display: true },
      ],
    });
  }
});
