#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace glaive {

/// Text as it may stand in HTML and in SVG, between tags and in quoted attributes.
std::string escape(std::string_view text);

/// A number with three significant digits and no exponent between 1e-3 and 1e6.
std::string short_number(double value);

namespace svg {

/// Maps values to a range of pixels.
struct Scale {
  double low = 0, high = 1;
  bool logarithmic = false;

  /// A scale that spans `values` with some room at both ends; a logarithmic one leaves out what is not positive.
  static Scale around(const std::vector<double>& values, bool logarithmic, double room = 0.06);
  double share(double value) const;   ///< 0 at low, 1 at high
  std::vector<double> ticks() const;  ///< none on a scale without extent, or with logarithms of what has none
};

/// One chart: a frame with axes, grid and labels, and marks given in the values' own units. How marks look is up to the
/// style sheet, by their class.
class Chart {
 public:
  Chart(double width, double height, Scale x, Scale y, std::string_view x_label, std::string_view y_label);

  void dot(double x, double y, std::string_view kind, double radius, std::string_view tip);
  void line(const std::vector<std::pair<double, double>>& points, std::string_view kind);
  void label(double x, double y, std::string_view text, std::string_view kind, double dx = 0, double dy = 0);
  std::string text(std::string_view title) const;  ///< the <svg> element; `title` is for who cannot see it

 private:
  double px(double x) const { return left + x_.share(x) * (width_ - left - right); }
  double py(double y) const { return height_ - bottom - y_.share(y) * (height_ - top - bottom); }
  static constexpr double left = 78, right = 14, top = 12, bottom = 42;
  double width_, height_;
  Scale x_, y_;
  std::string frame_, marks_;
};

}  // namespace svg
}  // namespace glaive
