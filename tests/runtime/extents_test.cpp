#include "runtime/extents.hpp"

#include <set>
#include <string>
#include <type_traits>

#include "tests/catch.hpp"

using namespace glaive;

TEST_CASE("extents of one kind add, subtract and compare") {
  Tokens tokens(5);
  tokens += Tokens(2);
  CHECK(tokens == Tokens(7));
  CHECK((tokens - Tokens(8)).count() == -1);
  CHECK(Tokens(1) < Tokens(2));
  CHECK(Tokens() == Tokens(0));
  CHECK(Tokens(std::size_t{3}).count() == 3);
}

TEST_CASE("extents do not convert into each other, nor from or to plain numbers") {
  CHECK_FALSE(std::is_convertible_v<Heads, Tokens>);
  CHECK_FALSE(std::is_constructible_v<Tokens, Heads>);
  CHECK_FALSE(std::is_convertible_v<int, Tokens>);
  CHECK_FALSE(std::is_convertible_v<Tokens, std::int64_t>);
  CHECK_FALSE(std::is_constructible_v<Tokens, bool>);
  CHECK_FALSE(std::is_constructible_v<Tokens, double>);
  CHECK_FALSE(std::is_assignable_v<Tokens&, Heads>);
  CHECK(std::is_constructible_v<Tokens, int>);
}

TEST_CASE("every axis has its own name") {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < axis_count; ++i) names.insert(to_string(static_cast<Axis>(i)));
  CHECK(names.size() == axis_count);
  CHECK(to_string(Axis::sequences) == "sequences");
  CHECK(to_string(Axis::workers) == "workers");
}
