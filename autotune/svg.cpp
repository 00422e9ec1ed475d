#include "autotune/svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace glaive {

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  return out;
}

std::string short_number(double value) {
  if (value == 0 or not std::isfinite(value)) return value == 0 ? "0" : "-";
  const double size = std::abs(value);
  if (size >= 1e6 or size < 1e-3) return fmt::format("{:.2e}", value);
  const int digits = std::max(0, 2 - static_cast<int>(std::floor(std::log10(size))));
  auto text = fmt::format("{:.{}f}", value, digits);
  if (text.contains('.')) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

namespace svg {

Scale Scale::around(const std::vector<double>& values, bool logarithmic, double room) {
  Scale scale{0, 1, logarithmic};
  bool any = false;
  for (const double value : values) {
    if (not std::isfinite(value) or (logarithmic and value <= 0)) continue;
    scale.low = any ? std::min(scale.low, value) : value;
    scale.high = any ? std::max(scale.high, value) : value;
    any = true;
  }
  if (logarithmic) {
    if (not any) scale.low = scale.high = 1;
    const double factor = std::pow(std::max(scale.high / scale.low, 1.2), room);
    scale.low /= factor;
    scale.high *= factor;
  } else {
    const double span = scale.high - scale.low, more = (span > 0 ? span : std::max(std::abs(scale.low), 1.0)) * room;
    scale.low -= more;
    scale.high += more;
  }
  return scale;
}

double Scale::share(double value) const {
  return logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
}

std::vector<double> Scale::ticks() const {
  std::vector<double> out;
  if (not(low < high and std::isfinite(low) and std::isfinite(high)) or (logarithmic and low <= 0)) return out;
  if (logarithmic) {
    const double decades = std::log10(high / low);
    if (decades > 1) {
      const std::vector<double> steps = decades > 3 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
      for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10)
        for (const double step : steps)
          if (power * step >= low and power * step <= high) out.push_back(power * step);
      return out;
    }
  }
  const double raw = (high - low) / 7, power = std::pow(10, std::floor(std::log10(raw)));
  const double step = power * (raw / power > 5 ? 10 : raw / power > 2 ? 5 : raw / power > 1 ? 2 : 1);
  for (double at = std::ceil(low / step); at * step <= high; ++at) out.push_back(at * step);
  return out;
}

Chart::Chart(double width, double height, Scale x, Scale y, std::string_view x_label, std::string_view y_label)
    : width_(width), height_(height), x_(x), y_(y) {
  auto to = std::back_inserter(frame_);
  for (const double tick : y.ticks()) {
    fmt::format_to(to, "<line class='grid' x1='{0:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{2:.1f}'/>", left, width - right,
                   py(tick));
    fmt::format_to(to, "<text class='tick' x='{:.1f}' y='{:.1f}' text-anchor='end'>{}</text>", left - 7, py(tick) + 3.5,
                   short_number(tick));
  }
  double last = -1e9;
  for (const double tick : x.ticks()) {
    if (px(tick) - last < 34) continue;  // labels would touch
    last = px(tick);
    fmt::format_to(to, "<line class='grid' x1='{0:.1f}' x2='{0:.1f}' y1='{1:.1f}' y2='{2:.1f}'/>", px(tick), top,
                   height - bottom);
    fmt::format_to(to, "<text class='tick' x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>", px(tick),
                   height - bottom + 16, short_number(tick));
  }
  fmt::format_to(to, "<line class='axis' x1='{0:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{2:.1f}'/>", left, width - right,
                 height - bottom);
  fmt::format_to(to, "<text class='name' x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>",
                 (left + width - right) / 2, height - 7, escape(x_label));
  fmt::format_to(to, "<text class='name' transform='translate(14 {:.1f}) rotate(-90)' text-anchor='middle'>{}</text>",
                 (top + height - bottom) / 2, escape(y_label));
}

void Chart::dot(double x, double y, std::string_view kind, double radius, std::string_view tip) {
  fmt::format_to(std::back_inserter(marks_),
                 "<circle class='{}' cx='{:.1f}' cy='{:.1f}' r='{}'><title>{}</title></circle>", kind, px(x), py(y),
                 radius, escape(tip));
}

void Chart::line(const std::vector<std::pair<double, double>>& points, std::string_view kind) {
  std::string path;
  for (const auto& [x, y] : points) path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px(x), py(y));
  fmt::format_to(std::back_inserter(marks_), "<path class='{}' d='{}'/>", kind, path);
}

void Chart::label(double x, double y, std::string_view text, std::string_view kind, double dx, double dy) {
  fmt::format_to(std::back_inserter(marks_), "<text class='{}' x='{:.1f}' y='{:.1f}'>{}</text>", kind, px(x) + dx,
                 py(y) + dy, escape(text));
}

std::string Chart::text(std::string_view title) const {
  return fmt::format("<svg viewBox='0 0 {:.0f} {:.0f}' role='img' aria-label='{}'>{}{}</svg>", width_, height_,
                     escape(title), frame_, marks_);
}

}  // namespace svg
}  // namespace glaive
