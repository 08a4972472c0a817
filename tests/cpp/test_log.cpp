// test_log.cpp - what the engine has to say to an operator.
//
// The log reads its environment once and belongs to the whole process, so each test logs in a child process
// whose standard error is a pipe that the child reads itself.
#include "log.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "process.hpp"

namespace offgil {
namespace {

using testing::exit_code_of_child;

// Standard error as a pipe, until it is destroyed.
class captured_stderr {
 public:
  captured_stderr() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    before_ = ::dup(STDERR_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    read_end_ = ends[0];
  }
  ~captured_stderr() {
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
    ::close(read_end_);
  }
  captured_stderr(const captured_stderr&) = delete;
  captured_stderr& operator=(const captured_stderr&) = delete;

  // What has been written since the last call, line by line.
  std::vector<std::string> lines() {
    std::stringstream text;
    std::array<char, 4096> some{};
    for (ssize_t got = 0; (got = ::read(read_end_, some.data(), some.size())) > 0;)
      text.write(some.data(), got);
    std::vector<std::string> split;
    for (std::string line; std::getline(text, line);) split.push_back(line);
    return split;
  }

 private:
  int before_ = -1;
  int read_end_ = -1;
};

void write_one_line_of_each_level() {
  using log::level;
  for (const level each : {level::debug, level::info, level::warn, level::error}) log::write(each, "a line");
}

std::size_t lines_at(const char* wanted) {
  if (wanted != nullptr)
    ::setenv("OFFGIL_LOG", wanted, 1);
  else
    ::unsetenv("OFFGIL_LOG");
  captured_stderr captured;
  write_one_line_of_each_level();
  return captured.lines().size();
}

TEST(log, writes_from_warn_on_by_default) {
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at(nullptr), 2U); }), 0);
}

TEST(log, complains_of_an_unknown_level_and_takes_the_default) {
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at("verbose"), 3U); }), 0);
}

TEST(log, writes_from_the_level_on_that_the_environment_names) {
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at("debug"), 4U); }), 0);
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at("info"), 3U); }), 0);
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at("warn"), 2U); }), 0);
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at("error"), 1U); }), 0);
  EXPECT_EQ(exit_code_of_child([] { EXPECT_EQ(lines_at("off"), 0U); }), 0);
}

TEST(log, knows_which_levels_are_enabled) {
  EXPECT_EQ(exit_code_of_child([] {
              ::setenv("OFFGIL_LOG", "info", 1);
              EXPECT_FALSE(log::enabled(log::level::debug));
              EXPECT_TRUE(log::enabled(log::level::info));
              EXPECT_TRUE(log::enabled(log::level::error));
            }),
            0);
}

TEST(log, says_who_speaks_how_urgently_and_what) {
  EXPECT_EQ(exit_code_of_child([] {
              captured_stderr captured;
              log::write(log::level::error, "the {} is no format");
              const auto lines = captured.lines();
              ASSERT_EQ(lines.size(), 1U);
              EXPECT_NE(lines[0].find(" offgil error ["), std::string::npos) << lines[0];
              EXPECT_TRUE(lines[0].ends_with("] the {} is no format")) << lines[0];
            }),
            0);
}

TEST(log, cuts_a_message_that_a_pipe_would_not_take_at_once) {
  EXPECT_EQ(exit_code_of_child([] {
              captured_stderr captured;
              log::write(log::level::error, std::string(100'000, 'x'));
              const auto lines = captured.lines();
              ASSERT_EQ(lines.size(), 1U);
              EXPECT_LT(lines[0].size(), 1'200U);
            }),
            0);
}

// The child alarms itself out of a write that blocks, see exit_code_of_child().
TEST(log, does_not_block_on_a_full_pipe_and_drops_the_oldest_lines_counted) {
  EXPECT_EQ(exit_code_of_child([] {
              captured_stderr captured;
              std::size_t written = 0;
              while (log::dropped() < 10) log::write(log::level::error, "line " + std::to_string(written++));
              std::vector<std::string> lines = captured.lines();
              const std::size_t in_pipe = lines.size();
              // Now there is room again: the next line brings those that waited.
              log::write(log::level::error, "line " + std::to_string(written++));
              for (std::string& line : captured.lines()) lines.push_back(std::move(line));
              const std::size_t lost = log::dropped();
              EXPECT_EQ(lines.size() + lost, written);
              EXPECT_LE(lost, 11U);
              for (std::size_t i = 0; i < lines.size(); ++i) {
                const std::string expected = "] line " + std::to_string(i < in_pipe ? i : i + lost);
                ASSERT_TRUE(lines[i].ends_with(expected)) << lines[i] << " is not " << expected;
              }
            }),
            0);
}

TEST(log, survives_a_standard_error_that_is_closed) {
  EXPECT_EQ(exit_code_of_child([] {
              ::close(STDERR_FILENO);
              for (int i = 0; i < 300; ++i) log::write(log::level::error, "nobody hears this");
              EXPECT_EQ(log::dropped(), 300U - 256U);
            }),
            0);
}

// Whoever read standard error may be gone. The line is lost, the process is not: SIGPIPE would end it.
TEST(log, survives_a_standard_error_that_nobody_reads_any_more) {
  EXPECT_EQ(exit_code_of_child([] {
              std::array<int, 2> ends{};
              ASSERT_EQ(::pipe(ends.data()), 0);
              ::dup2(ends[1], STDERR_FILENO);
              ::close(ends[0]);
              log::write(log::level::error, "nobody hears this");
            }),
            0);
}

TEST(log, keeps_the_lines_of_many_threads_whole) {
  EXPECT_EQ(exit_code_of_child([] {
              constexpr std::size_t each = 100;
              captured_stderr captured;
              std::vector<std::thread> threads;
              for (int t = 0; t < 4; ++t)
                threads.emplace_back([] {
                  for (std::size_t i = 0; i < each; ++i) log::write(log::level::error, "a whole line");
                });
              for (std::thread& thread : threads) thread.join();
              const auto lines = captured.lines();
              EXPECT_EQ(lines.size(), 4 * each);
              for (const std::string& line : lines) EXPECT_TRUE(line.ends_with("] a whole line")) << line;
            }),
            0);
}

}  // namespace
}  // namespace offgil
