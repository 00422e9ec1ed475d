#pragma once
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/source.hpp"
#include "runtime/plan.hpp"
#include "runtime/problem.hpp"

namespace glaive {

/// A knob of a family: its name in printed variants, what it means, and the values worth trying for one problem and
/// target.
struct Parameter {
  std::string_view name;
  std::string_view meaning;
  std::vector<int> values;  ///< ascending; legal combinations are decided by Family::constraint
};

/// One value per parameter of a family, in the family's order.
using Config = std::vector<int>;

/// The arguments of every entry of ours, in order; kernels on GPUs take more behind them.
const std::vector<Arg>& entry_args();

/// What code is instantiated for.
struct Instance {
  Problem problem;
  Target target;
};

/// One kernel structure: its mathematics, parameters, constraints, cost prior, instantiation and plan. Every family's
/// folder has these parts in this order; a new one is a folder and a line in families().
class Family {
 public:
  virtual ~Family() = default;
  virtual std::string_view name() const = 0;
  virtual std::string_view summary() const = 0;  ///< one line
  virtual Target::Kind kind() const { return Target::Kind::cpu; }

  /// Fails with `unsupported` and a sentence that says what the family does cover.
  virtual Result<void> applicable(const Instance& instance) const = 0;

  virtual std::vector<Parameter> parameters(const Instance& instance) const = 0;
  /// Why this combination is not worth instantiating (registers, scratch, divisibility); nothing when it is legal.
  virtual std::optional<std::string> constraint(const Instance& instance, const Config& config) const = 0;
  virtual Config default_config(const Instance& instance) const = 0;

  /// Estimated seconds of one call: ranks variants before anything is compiled.
  virtual double prior(const Instance& instance, const Shape& shape, const DeviceInfo& device,
                       const Config& config) const = 0;

  virtual Source instantiate(const Instance& instance, const Config& config) const = 0;
  virtual Plan plan(const Instance& instance, const Config& config) const = 0;
};

/// Every family of this build, in the order in which ties are broken.
std::span<const Family* const> families();
/// The first of this name; a name may stand for one structure on CPUs and another on GPUs.
const Family* find_family(std::string_view name);
const Family* find_family(std::string_view name, Target::Kind kind);

/// `step (cpu)`: name and kind of device, as a name may stand for two.
std::string named(const Family& family);

/// A family with a value for every parameter.
struct Variant {
  const Family* family = nullptr;
  Config config;
  friend bool operator==(const Variant&, const Variant&) = default;
};

/// `chunk(C=16,rows=6,...)`: all parameters, in the family's order.
std::string to_string(const Variant& variant, const Instance& instance);
/// Parameters left out take their default; an unknown family, parameter or illegal value is named with what is allowed.
Result<Variant> parse_variant(std::string_view text, const Instance& instance);

/// All legal variants of the families that apply, in the order of the parameters' values.
std::vector<Variant> enumerate(const Instance& instance);

/// Changes when any applicable family gains, loses or renames a parameter or value.
std::uint64_t space_hash(const Instance& instance);

}  // namespace glaive
