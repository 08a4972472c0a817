// log.cpp - what the engine has to say to an operator. The only file that names spdlog.
#include "log.hpp"

#include <poll.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "fork.hpp"

namespace offgil::log {
namespace {

// Standard error, written only while it takes a line at once.
class drop_oldest_sink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t capacity = 256;

  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (waiting_.size() == capacity) {
      waiting_.pop_front();
      dropped_.fetch_add(1, std::memory_order_relaxed);
    }
    waiting_.emplace_back(line.data(), line.size());
    flush_();
  }

  void flush_() override {
    while (!waiting_.empty() && accepts_a_line()) {
      const std::string& line = waiting_.front();
      if (::write(STDERR_FILENO, line.data(), line.size()) < 0) return;
      waiting_.pop_front();
    }
  }

  // A pipe that polls writable takes PIPE_BUF bytes without blocking, which is more than a line. One that
  // nobody reads any more is an error besides: writing to it would raise SIGPIPE, which ends most processes.
  static bool accepts_a_line() noexcept {
    pollfd standard_error{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    return ::poll(&standard_error, 1, 0) == 1 && standard_error.revents == POLLOUT;
  }

  std::deque<std::string> waiting_;
  std::atomic<std::uint64_t> dropped_{0};
};

spdlog::level::level_enum to_spdlog(level at) noexcept {
  switch (at) {
    case level::debug:
      return spdlog::level::debug;
    case level::info:
      return spdlog::level::info;
    case level::warn:
      return spdlog::level::warn;
    case level::error:
      return spdlog::level::err;
    case level::off:
      break;
  }
  return spdlog::level::off;
}

struct state {
  process_generation born_in;
  std::shared_ptr<drop_oldest_sink> sink = std::make_shared<drop_oldest_sink>();
  spdlog::logger logger{"offgil", sink};

  state() {
    logger.set_pattern("%Y-%m-%d %H:%M:%S.%e offgil %l [%t] %v");
    logger.set_level(spdlog::level::warn);
    const char* const wanted = std::getenv("OFFGIL_LOG");
    if (wanted == nullptr || *wanted == '\0') return;
    const auto named = spdlog::level::from_str(wanted);
    // spdlog takes a name that it does not know for "off".
    if (named != spdlog::level::off || std::string_view(wanted) == "off")
      logger.set_level(named);
    else
      logger.warn("OFFGIL_LOG={} is none of debug, info, warn, error, off: warn is taken", wanted);
  }
};

// Never destroyed: threads may log until the process is gone. A forked child gets one of its own, because the
// lock of its parent's may be held, by a thread that the child does not have.
state& the_state() {
  static std::atomic<state*> current{std::make_unique<state>().release()};
  state* seen = current.load(std::memory_order_acquire);
  if (!seen->born_in.is_over()) return *seen;
  auto fresh = std::make_unique<state>();
  if (!current.compare_exchange_strong(seen, fresh.get(), std::memory_order_acq_rel)) return *seen;
  return *fresh.release();
}

}  // namespace

void write(level at, std::string_view message) noexcept {
  try {
    constexpr std::size_t longest = 1024;
    the_state().logger.log(to_spdlog(at),
                           spdlog::string_view_t(message.data(), std::min(message.size(), longest)));
  } catch (...) {
    // No memory for a log line: the line is lost, the worker is not.
  }
}

bool enabled(level at) noexcept {
  try {
    return the_state().logger.should_log(to_spdlog(at));
  } catch (...) {
    return false;
  }
}

std::uint64_t dropped() noexcept {
  try {
    return the_state().sink->dropped();
  } catch (...) {
    return 0;
  }
}

}  // namespace offgil::log
