// span_log.hpp - when the jobs of one worker were submitted, began and ended.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "clock.hpp"

namespace offgil {

struct job_span {
  std::array<char, 40> name{};  // of what ran; ended by a zero, cut where it does not fit
  clock::time_point submitted{};
  clock::time_point begin{};
  clock::time_point end{};
};

// One worker adds, anybody opens and takes. Only while it is open does it cost anything: a lock that nobody
// else wants, and the memory.
class span_log {
 public:
  struct content {
    std::vector<job_span> spans;
    std::size_t lost = 0;  // there were more than the limit, or no memory
  };

  void open(std::size_t limit) {
    const std::lock_guard lock(mutex_);
    content_ = {};
    limit_ = limit;
  }

  void add(const job_span& span) noexcept {
    const std::lock_guard lock(mutex_);
    if (content_.spans.size() < limit_) {
      try {
        content_.spans.push_back(span);
        return;
      } catch (const std::bad_alloc&) {  // counted like those beyond the limit
      }
    }
    if (limit_ != 0) ++content_.lost;
  }

  content close() noexcept {
    const std::lock_guard lock(mutex_);
    limit_ = 0;
    return std::exchange(content_, {});
  }

 private:
  std::mutex mutex_;
  // Guarded by mutex_:
  content content_;
  std::size_t limit_ = 0;
};

}  // namespace offgil
