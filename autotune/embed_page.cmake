# Writes a C++ file that holds the report's style sheet and script: cmake -DOUT=file -DCSS=file -DJS=file -P embed_page.cmake
file(READ "${CSS}" css)
file(READ "${JS}" js)
file(WRITE "${OUT}" "#include <string_view>

namespace glaive {

extern const std::string_view html_report_css, html_report_js;
const std::string_view html_report_css = R\"css(${css})css\", html_report_js = R\"js(${js})js\";

}  // namespace glaive
")
