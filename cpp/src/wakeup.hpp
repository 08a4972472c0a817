// wakeup.hpp - a file descriptor that becomes readable when somebody wakes it.
#pragma once

#include "completion_queue.hpp"

namespace offgil {

// An eventfd, or a pipe on systems that have none. Non-blocking and close-on-exec. wake() may be called from
// any thread; clear() and fd() belong to the thread that waits.
class wakeup final : public waker {
 public:
  enum class mechanism { best, eventfd, pipe };

  // Throws std::system_error when no descriptor can be had or the mechanism is unknown to this system.
  explicit wakeup(mechanism with = mechanism::best);
  ~wakeup() override;
  wakeup(const wakeup&) = delete;
  wakeup& operator=(const wakeup&) = delete;

  int fd() const noexcept { return read_end_; }
  void wake() noexcept override;
  void clear() noexcept;

 private:
  int read_end_ = -1;
  int write_end_ = -1;  // the same descriptor for an eventfd
};

}  // namespace offgil
