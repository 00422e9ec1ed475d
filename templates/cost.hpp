#pragma once
// What variants cost, in terms that families share: a prior counts, and seconds() turns its counts into time.
#include <algorithm>
#include <cmath>

namespace glaive {

/// One average task of a kernel, by what keeps a unit (a core, an SM) busy or lets it wait.
struct Cost {
  double tasks = 1;       ///< of a call; units take them in rounds
  double resident = 1;    ///< tasks that a unit holds at once: what registers and shared memory allow
  double operations = 0;  ///< vector arithmetic; a multiply-add is one
  double accesses = 0;    ///< loads and stores of the nearest memory that arithmetic does not hide
  double reductions = 0;  ///< sums across the lanes of a vector
  double waits = 0;       ///< times that the pipeline drains: starts of inner loops, barriers
  double bytes = 0;       ///< from and to the memory that tasks do not keep to themselves
};

/// Clocks that one of each takes on a unit.
struct UnitRates {
  double hertz;
  double operation, access, reduction, wait, task;
  double byte;
};

/// Rounds of tasks times the clocks of one: residents share the unit's arithmetic, but wait side by side, and traffic
/// hides behind arithmetic, or the other way round, but for a fifth.
inline double seconds(const Cost& cost, const UnitRates& rates, int units) {
  const double busy =
      cost.operations * rates.operation + cost.accesses * rates.access + cost.reductions * rates.reduction;
  const double alone = busy + cost.waits * rates.wait + rates.task;
  const double work = std::max(cost.resident * busy, alone);
  const double traffic = cost.resident * cost.bytes * rates.byte;
  const double rounds = std::ceil(cost.tasks / (units * cost.resident));
  return rounds * (std::max(work, traffic) + 0.2 * std::min(work, traffic)) / rates.hertz;
}

}  // namespace glaive
