// dispatcher.hpp - a thread that brings completions to event loops which cannot watch a descriptor.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

#include "thread.hpp"

namespace offgil::python {

class mailbox;

// The callback channel: workers announce a mailbox, without the GIL; the dispatcher takes the GIL once for
// all that have been announced by then, and asks each one's loop to drain it. One per pool, started when
// first needed. announce() is for any thread.
class dispatcher {
 public:
  // Throws std::system_error when the thread cannot start.
  // `acquisitions` counts the times the thread takes the GIL.
  dispatcher(const std::string& name, std::atomic<std::uint64_t>& acquisitions);
  ~dispatcher() { stop(); }
  dispatcher(const dispatcher&) = delete;
  dispatcher& operator=(const dispatcher&) = delete;

  void announce(mailbox& ready) noexcept;

  // Brings what has been announced, and joins the thread. Call without the GIL. Idempotent; announcements
  // that come later go nowhere.
  void stop() noexcept;

 private:
  void run() noexcept;
  mailbox* wait_for_announcements() noexcept;
  void forget(mailbox& taken) noexcept;

  std::mutex stopping_mutex_;  // held by who joins the thread
  std::mutex mutex_;
  std::condition_variable announced_;
  // Guarded by mutex_:
  mailbox* first_ = nullptr;
  bool stopping_ = false;

  std::atomic<std::uint64_t>& acquisitions_;
  thread thread_;  // last: runs on the members above
};

}  // namespace offgil::python
