#include "runtime/problem.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "runtime/text.hpp"

namespace glaive {
namespace {

struct Word {
  std::string_view text;
  std::size_t column = 0;
};

ParseError at(const Word& word, std::string message) {
  return {word.column, std::max<std::size_t>(word.text.size(), 1), std::move(message)};
}

std::vector<Word> words_of(std::string_view text, std::size_t column) {
  static constexpr std::string_view blanks = " \t\r";
  std::vector<Word> words;
  for (std::size_t begin = text.find_first_not_of(blanks); begin < text.size();) {
    const std::size_t end = std::min(text.find_first_of(blanks, begin), text.size());
    words.push_back({text.substr(begin, end - begin), column + begin});
    begin = text.find_first_not_of(blanks, end);
  }
  return words;
}

/// The end of what was written, where a missing word is pointed out.
Word end_of(std::string_view text, std::size_t column) {
  const std::size_t last = text.find_last_not_of(" \t\r");
  return {"", column + (last == std::string_view::npos ? 0 : last + 1)};
}

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    if (name == to_string(dtype)) return dtype;
  return std::nullopt;
}

/// A decimal number in [low, high] and nothing else.
std::optional<std::int64_t> number_of(std::string_view digits, std::int64_t low, std::int64_t high) {
  std::int64_t value = 0;
  if (digits.empty() or digits.front() == '-') return std::nullopt;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() or end != digits.data() + digits.size() or value < low or value > high) return std::nullopt;
  return value;
}

struct ExtentWord {
  std::string_view prefix, meaning;
  std::int64_t low, high;
};
constexpr ExtentWord heads_word = {"H", "query heads", 1, most_heads};
constexpr ExtentWord kv_heads_word = {"Hkv", "kv heads", 1, most_heads};
constexpr ExtentWord k_word = {"K", "key channels", 1, most_channels};
constexpr ExtentWord v_word = {"V", "value channels", 1, most_channels};
constexpr ExtentWord sequences_word = {"B", "sequences", 1, most_call_sequences};
constexpr ExtentWord tokens_word = {"T", "tokens of each sequence", 0, most_call_tokens};

/// Whether the word is an extent: the prefix followed by something that starts like a number, or by nothing.
bool is_extent(const Word& word, const ExtentWord& extent) {
  if (not word.text.starts_with(extent.prefix)) return false;
  const auto rest = word.text.substr(extent.prefix.size());
  return rest.empty() or rest.front() == '-' or rest.front() == '+' or (rest.front() >= '0' and rest.front() <= '9');
}

std::string range(const ExtentWord& extent) {
  return std::to_string(extent.low) + " to " + std::to_string(extent.high);
}

std::expected<std::int64_t, ParseError> extent_of(const Word& word, const ExtentWord& extent) {
  if (const auto value = number_of(word.text.substr(extent.prefix.size()), extent.low, extent.high)) return *value;
  return std::unexpected(at(word, std::string(extent.prefix) + " is the number of " + std::string(extent.meaning) +
                                      ", a whole number from " + range(extent) + ", not " + in_quotes(word.text)));
}

/// A word together with where it stood, so that later checks can point at it and repetition is noticed.
template <class T>
struct Given {
  std::optional<T> value;
  Word word;

  std::optional<ParseError> set(T new_value, const Word& at_word) {
    if (value) return at(at_word, in_quotes(at_word.text) + " repeats what " + in_quotes(word.text) + " already says");
    value = new_value;
    word = at_word;
    return std::nullopt;
  }
};

constexpr std::string_view problem_words =
    "forward, step, H<n>, Hkv<n>, K<n>, V<n>, f32, bf16, f16, gate=<dtype>, state=<dtype>, logit, vk";

std::expected<Problem, ParseError> problem_of(std::string_view text, DType default_io) {
  Given<Op> op;
  Given<std::int64_t> heads, kv_heads, k, v;
  Given<DType> io, gate, state;
  Given<bool> logit, vk;

  for (const Word& word : words_of(text, 0)) {
    std::optional<ParseError> error;
    const auto take_extent = [&](const ExtentWord& extent, Given<std::int64_t>& given) {
      const auto value = extent_of(word, extent);
      error = value ? given.set(*value, word) : std::optional(value.error());
    };
    const auto take_dtype = [&](std::string_view prefix, Given<DType>& given) {
      const auto name = word.text.substr(prefix.size());
      const auto dtype = dtype_of(name);
      error = dtype ? given.set(*dtype, word)
                    : std::optional(at(word, in_quotes(name) + " is no dtype; dtypes are f32, bf16, f16"));
    };
    if (word.text == "forward" or word.text == "step") {
      error = op.set(word.text == "step" ? Op::step : Op::forward, word);
    } else if (const auto dtype = dtype_of(word.text)) {
      error = io.set(*dtype, word);
    } else if (word.text == "logit") {
      error = logit.set(true, word);
    } else if (word.text == "vk") {
      error = vk.set(true, word);
    } else if (word.text.starts_with("gate=")) {
      take_dtype("gate=", gate);
    } else if (word.text.starts_with("state=")) {
      take_dtype("state=", state);
    } else if (is_extent(word, kv_heads_word)) {
      take_extent(kv_heads_word, kv_heads);
    } else if (is_extent(word, heads_word)) {
      take_extent(heads_word, heads);
    } else if (is_extent(word, k_word)) {
      take_extent(k_word, k);
    } else if (is_extent(word, v_word)) {
      take_extent(v_word, v);
    } else if (is_extent(word, sequences_word) or is_extent(word, tokens_word) or word.text.starts_with("lens=")) {
      error = at(word, in_quotes(word.text) + " belongs to the shape: write it after the @");
    } else if (word.text.find('@') != std::string_view::npos) {
      error = at(word, "a problem has no shape: leave out the @ and what follows");
    } else {
      error = at(word, "unknown word " + in_quotes(word.text) + "; words are " + std::string(problem_words));
    }
    if (error) return std::unexpected(*error);
  }

  const std::pair<const Given<std::int64_t>*, const ExtentWord*> required[] = {
      {&heads, &heads_word}, {&k, &k_word}, {&v, &v_word}};
  for (const auto& [given, extent] : required)
    if (not given->value)
      return std::unexpected(at(end_of(text, 0), "the number of " + std::string(extent->meaning) + " is missing: add " +
                                                     std::string(extent->prefix) + "<n>"));
  if (kv_heads.value and *heads.value % *kv_heads.value != 0)
    return std::unexpected(at(kv_heads.word, in_quotes(kv_heads.word.text) + " does not divide " +
                                                 in_quotes(heads.word.text) +
                                                 ": the query heads must be a multiple of the kv heads"));

  Problem problem;
  problem.op = op.value.value_or(Op::forward);
  problem.heads = Heads(*heads.value);
  problem.kv_heads = KvHeads(kv_heads.value.value_or(*heads.value));
  problem.k = KeyDim(*k.value);
  problem.v = ValueDim(*v.value);
  problem.io = io.value.value_or(default_io);
  problem.gate = gate.value.value_or(problem.io);
  problem.state = state.value.value_or(DType::f32);
  problem.gate_form = logit.value ? GateForm::logit : GateForm::log;
  problem.layout = vk.value ? StateLayout::vk : StateLayout::kv;
  return problem;
}

bool is_problem_word(const Word& word) {
  for (const ExtentWord& extent : {heads_word, kv_heads_word, k_word, v_word})
    if (is_extent(word, extent)) return true;
  for (const std::string_view name : {"forward", "step", "logit", "vk"})
    if (word.text == name) return true;
  return dtype_of(word.text) or word.text.starts_with("gate=") or word.text.starts_with("state=");
}

std::expected<std::vector<Tokens>, ParseError> lengths_of(const Word& word) {
  constexpr std::string_view prefix = "lens=";
  std::vector<Tokens> lengths;
  std::int64_t total = 0;
  for (std::size_t begin = prefix.size(); begin <= word.text.size();) {
    const std::size_t end = std::min(word.text.find(',', begin), word.text.size());
    const Word part = {word.text.substr(begin, end - begin), word.column + begin};
    const auto length = number_of(part.text, 0, most_call_tokens);
    if (not length)
      return std::unexpected(at(part, "lens= lists the tokens of each sequence, whole numbers from 0 to " +
                                          std::to_string(most_call_tokens) + " parted by commas, not " +
                                          in_quotes(part.text)));
    total += *length;
    if (total > most_call_tokens)
      return std::unexpected(
          at(part, "the lengths add up to more than " + std::to_string(most_call_tokens) + " tokens"));
    if (static_cast<std::int64_t>(lengths.size()) == most_call_sequences)
      return std::unexpected(at(part, "a shape has at most " + std::to_string(most_call_sequences) + " sequences"));
    lengths.push_back(Tokens(*length));
    begin = end + 1;
  }
  return lengths;
}

std::expected<Shape, ParseError> shape_of(std::string_view text, std::size_t column) {
  Given<std::int64_t> sequences, tokens;
  std::optional<std::vector<Tokens>> lengths;
  Word lengths_word;
  for (const Word& word : words_of(text, column)) {
    std::optional<ParseError> error;
    const auto take_extent = [&](const ExtentWord& extent, Given<std::int64_t>& given) {
      const auto value = extent_of(word, extent);
      error = value ? given.set(*value, word) : std::optional(value.error());
    };
    if (is_extent(word, sequences_word)) {
      take_extent(sequences_word, sequences);
    } else if (is_extent(word, tokens_word)) {
      take_extent(tokens_word, tokens);
    } else if (word.text.starts_with("lens=")) {
      if (lengths) return std::unexpected(at(word, "lens= is given twice"));
      auto parsed = lengths_of(word);
      if (not parsed) return std::unexpected(parsed.error());
      lengths = std::move(*parsed);
      lengths_word = word;
    } else if (word.text.find('@') != std::string_view::npos) {
      error = at(word, "a case has one @ between its problem and its shape, with spaces round it");
    } else if (is_problem_word(word)) {
      error = at(word, in_quotes(word.text) + " belongs to the problem: write it before the @");
    } else {
      error = at(word, "unknown word " + in_quotes(word.text) +
                           "; a shape is B<sequences> T<tokens of each>, or lens=<tokens>,<tokens>,...");
    }
    if (error) return std::unexpected(*error);
  }
  if (lengths) {
    if (sequences.value or tokens.value)
      return std::unexpected(at(lengths_word, "lens= stands alone: it already says how many sequences and tokens"));
    return Shape::ragged(std::move(*lengths));
  }
  if (not sequences.value or not tokens.value)
    return std::unexpected(
        at(end_of(text, column), std::string("the shape lacks ") + (sequences.value ? "T<n>" : "B<n>") +
                                     ": write B<sequences> T<tokens of each>, or lens=<tokens>,..."));
  if (*tokens.value > 0 and *sequences.value > most_call_tokens / *tokens.value)
    return std::unexpected(at(tokens.word, "B x T is more than " + std::to_string(most_call_tokens) + " tokens"));
  return Shape::uniform(Sequences(*sequences.value), Tokens(*tokens.value));
}

Result<void> check_range(const ExtentWord& extent, std::int64_t given) {
  if (given >= extent.low and given <= extent.high) return {};
  return fail(Status::invalid_argument, std::string(extent.prefix) + " is the number of " +
                                            std::string(extent.meaning) + ", from " + range(extent) + ", not " +
                                            std::to_string(given));
}

}  // namespace

std::string_view to_string(Op op) { return op == Op::forward ? "forward" : "step"; }

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
  }
  return "?";
}

std::string_view to_string(GateForm form) { return form == GateForm::log ? "log" : "logit"; }
std::string_view to_string(StateLayout layout) { return layout == StateLayout::kv ? "kv" : "vk"; }
std::int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

Shape Shape::uniform(Sequences sequences, Tokens each) {
  Shape shape;
  shape.sequences_ = sequences;
  shape.longest_ = each;
  std::int64_t total = 0;
  // A product past int64 cannot be a legal shape; validate refuses the largest count as well as any other.
  if (__builtin_mul_overflow(sequences.count(), each.count(), &total)) total = INT64_MAX;
  shape.total_ = Tokens(total);
  return shape;
}

Shape Shape::ragged(std::vector<Tokens> lengths) {
  Shape shape;
  shape.sequences_ = Sequences(lengths.size());
  std::int64_t total = 0;
  for (const Tokens length : lengths) {
    shape.longest_ = std::max(shape.longest_, length);
    if (__builtin_add_overflow(total, length.count(), &total)) total = INT64_MAX;
  }
  shape.total_ = Tokens(total);
  shape.lengths_ = std::move(lengths);
  return shape;
}

Tokens Shape::length(std::int64_t sequence) const {
  return lengths_.empty() ? longest_ : lengths_[static_cast<std::size_t>(sequence)];
}

Result<void> validate(const Problem& problem) {
  if (auto r = check_range(heads_word, problem.heads.count()); not r) return r;
  if (auto r = check_range(kv_heads_word, problem.kv_heads.count()); not r) return r;
  if (auto r = check_range(k_word, problem.k.count()); not r) return r;
  if (auto r = check_range(v_word, problem.v.count()); not r) return r;
  if (problem.heads.count() % problem.kv_heads.count() != 0)
    return fail(Status::invalid_argument,
                "H must be a multiple of Hkv, not H=" + std::to_string(problem.heads.count()) +
                    " with Hkv=" + std::to_string(problem.kv_heads.count()));
  return {};
}

Result<void> validate(const Shape& shape) {
  if (auto r = check_range(sequences_word, shape.sequences().count()); not r) return r;
  if (shape.is_uniform()) {
    if (auto r = check_range(tokens_word, shape.longest().count()); not r) return r;
  } else {
    for (std::int64_t b = 0; b < shape.sequences().count(); ++b)
      if (auto r = check_range(tokens_word, shape.length(b).count()); not r) return r;
  }
  if (shape.total().count() > most_call_tokens)
    return fail(Status::invalid_argument, "a call has at most " + std::to_string(most_call_tokens) +
                                              " tokens in all its sequences, not " +
                                              std::to_string(shape.total().count()));
  return {};
}

Extents extents_of(const Problem& problem, Sequences sequences, Tokens total, Tokens longest, std::int64_t workers) {
  Extents extents;
  extents[Axis::sequences] = sequences.count();
  extents[Axis::tokens] = total.count();
  extents[Axis::longest] = longest.count();
  extents[Axis::heads] = problem.heads.count();
  extents[Axis::kv_heads] = problem.kv_heads.count();
  extents[Axis::k] = problem.k.count();
  extents[Axis::v] = problem.v.count();
  extents[Axis::workers] = workers;
  return extents;
}

Extents extents_of(const Problem& problem, const Shape& shape, std::int64_t workers) {
  return extents_of(problem, shape.sequences(), shape.total(), shape.longest(), workers);
}

std::string to_string(const Problem& problem) {
  std::string out(to_string(problem.op));
  out += " H" + std::to_string(problem.heads.count());
  if (problem.kv_heads.count() != problem.heads.count()) out += " Hkv" + std::to_string(problem.kv_heads.count());
  out += " K" + std::to_string(problem.k.count()) + " V" + std::to_string(problem.v.count()) + " ";
  out += to_string(problem.io);
  if (problem.gate != problem.io) out.append(" gate=").append(to_string(problem.gate));
  if (problem.state != DType::f32) out.append(" state=").append(to_string(problem.state));
  if (problem.gate_form == GateForm::logit) out += " logit";
  if (problem.layout == StateLayout::vk) out += " vk";
  return out;
}

std::string to_string(const Shape& shape) {
  if (shape.is_uniform())
    return "B" + std::to_string(shape.sequences().count()) + " T" + std::to_string(shape.longest().count());
  std::string out = "lens=";
  for (std::int64_t b = 0; b < shape.sequences().count(); ++b) {
    if (b > 0) out += ',';
    out += std::to_string(shape.length(b).count());
  }
  return out;
}

std::string to_string(const Case& line) { return to_string(line.problem) + " @ " + to_string(line.shape); }

std::string ParseError::pointing_at(std::string_view line) const {
  std::string marks;
  const auto is_continuation = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  for (std::size_t i = 0; i < column; ++i) {
    if (i < line.size() and is_continuation(line[i])) continue;  // one mark per character of UTF-8, not per byte
    marks += i < line.size() and line[i] == '\t' ? '\t' : ' ';
  }
  for (std::size_t i = column; i < column + std::max<std::size_t>(length, 1); ++i) {
    if (i > column and i < line.size() and is_continuation(line[i])) continue;
    marks += '^';
  }
  return std::string(line) + "\n" + marks + "\n" + message;
}

std::expected<Problem, ParseError> parse_problem(std::string_view text, DType default_io) {
  return problem_of(text, default_io);
}

std::expected<Case, ParseError> parse_case(std::string_view text, DType default_io) {
  const std::size_t split = text.find('@');
  const auto problem = problem_of(text.substr(0, split), default_io);
  if (not problem) return std::unexpected(problem.error());
  if (split == std::string_view::npos)
    return std::unexpected(
        at(end_of(text, 0), "the shape is missing: add @ B<sequences> T<tokens of each>, or @ lens=<tokens>,..."));
  auto shape = shape_of(text.substr(split + 1), split + 1);
  if (not shape) return std::unexpected(shape.error());
  if (problem->op == Op::step and shape->longest() > Tokens(most_step_tokens)) {
    const std::size_t begin = text.find_first_not_of(" \t", split + 1);
    return std::unexpected(ParseError{begin, text.find_last_not_of(" \t\r") + 1 - begin,
                                      "a step takes at most " + std::to_string(most_step_tokens) +
                                          " tokens of each sequence, not " + std::to_string(shape->longest().count()) +
                                          "; a forward takes more"});
  }
  return Case{*problem, std::move(*shape)};
}

Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view file_name, DType default_io) {
  std::vector<Case> cases;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    const std::string_view code = line.substr(0, line.find('#'));
    if (code.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto parsed = parse_case(code, default_io);
    if (not parsed) {
      ParseError error = parsed.error();
      const std::string sentence = std::exchange(error.message, {});
      std::string shown = error.pointing_at(line);
      shown.pop_back();  // the newline before the sentence, which stands first here
      return fail(Status::invalid_argument, std::string(file_name) + ":" + std::to_string(number) + ":" +
                                                std::to_string(error.column + 1) + ": " + sentence + "\n" + shown);
    }
    cases.push_back(std::move(*parsed));
  }
  return cases;
}

double useful_operations(const Problem& problem, const Shape& shape) {
  const double state = static_cast<double>(problem.k.count()) * static_cast<double>(problem.v.count());
  const double heads = static_cast<double>(problem.kv_heads.count()) + static_cast<double>(problem.heads.count());
  return 2.0 * state * heads * static_cast<double>(shape.total().count());
}

double minimal_bytes(const Problem& problem, const Shape& shape) {
  const auto bytes = [](std::int64_t a, std::int64_t b, DType dtype) {
    return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(size_of(dtype));
  };
  const std::int64_t heads = problem.heads.count(), kv_heads = problem.kv_heads.count();
  const std::int64_t k = problem.k.count(), v = problem.v.count();
  const double token = bytes(heads, k, problem.io) + bytes(heads, v, problem.io) + bytes(kv_heads, k, problem.io) +
                       bytes(kv_heads, v, problem.io) + bytes(kv_heads, k, problem.gate);
  const double state = bytes(kv_heads * k, v, problem.state);
  return token * static_cast<double>(shape.total().count()) +
         2.0 * state * static_cast<double>(shape.sequences().count());
}

}  // namespace glaive
