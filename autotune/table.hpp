#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "autotune/drop.hpp"
#include "autotune/journal.hpp"
#include "autotune/space.hpp"

namespace glaive {

/// The times of every legal variant of one case: what any search could have seen, kept as text, so that a strategy can
/// be judged where the device is not.
struct Table {
  struct FamilyColumn {
    std::string name;
    std::vector<std::string> parameters;
  };
  struct Row {
    std::size_t family = 0;  ///< index into families
    Config config;
    bool is_default = false;
    Drop drop = Drop::none;
    double prior = 0;                      ///< seconds, as estimated by the glaive that recorded
    double low = 0, median = 0, high = 0;  ///< seconds, with the 95 % interval; 0 when out
  };

  Case what;
  DeviceInfo device;  ///< units: those that ran the kernels
  std::string part;   ///< rules of keep_only by which the space was cut; empty when it is whole
  std::string compiler, commit, command, when;
  std::vector<FamilyColumn> families;
  std::vector<Row> rows;
};

/// The table of a case whose every candidate is in the journal; times are scaled to the reference's overall median.
/// Fails with not_found when a candidate was neither timed nor dropped.
Result<Table> make_table(const Space& space, const Case& what, const DeviceInfo& device, Journal& journal,
                         const CaseKey& key);

/// Lines `# key: value`, of which `rows` counts the rows that follow: comma-separated values, times in microseconds.
std::string to_text(const Table& table);
/// Fails with invalid_argument and the line that is wrong; so it does for a table that was cut, for a variant that is
/// there twice, and for one that a family of this build with the same parameters does not have.
Result<Table> parse_table(std::string_view text);
/// The same for a file; its name is in every error.
Result<Table> read_table(const std::filesystem::path& file);

/// A table as a strategy sees it.
struct RecordedSpace {
  std::vector<std::unique_ptr<Family>> families;  ///< names, values and priors only
  Space space;
  std::vector<const Table::Row*> rows;  ///< by candidate; of the table that it was made from
  bool fresh_prior = false;             ///< priors of this build; else as recorded, since it has other families by now
};
RecordedSpace make_recorded_space(const Table& table);

}  // namespace glaive
