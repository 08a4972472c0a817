// dispatcher.hpp - the thread that brings completions to Python code nobody else would bring them to.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>

#include "thread.hpp"

namespace offgil::python {

// Somebody who announces himself to a dispatcher, from any thread and without the GIL, and is called back
// with the GIL. Outlives the dispatcher's thread.
class announced {
 public:
  virtual ~announced() = default;
  virtual void on_dispatch() noexcept = 0;

 private:
  friend class dispatcher;
  announced* next_ = nullptr;  // guarded by the dispatcher's mutex, like the next
  bool is_announced_ = false;
};

// The callback channel: workers announce what has completions, without the GIL; the dispatcher takes the GIL
// once for all that have been announced by then. One per pool, started when first needed. announce() is for
// any thread.
class dispatcher {
 public:
  // Throws std::system_error when the thread cannot start. It is called <name>-gil, also in Python.
  // `acquisitions` counts the times the thread takes the GIL.
  dispatcher(const std::string& name, std::atomic<std::uint64_t>& acquisitions);
  ~dispatcher() { stop(); }
  dispatcher(const dispatcher&) = delete;
  dispatcher& operator=(const dispatcher&) = delete;

  // `soon`: within some 20 ms, together with whatever comes until then.
  enum class urgency { now, soon };
  void announce(announced& ready, urgency how = urgency::now) noexcept;

  // Lets the thread end when it has brought what has been announced; announcements that come later go
  // nowhere.
  void let_end() noexcept;

  // The same, and joins the thread. Call without the GIL. Idempotent.
  void stop() noexcept;

  bool is_on_own_thread() const noexcept;

 private:
  void run(const std::string& name) noexcept;
  announced* wait_for_announcements() noexcept;
  void forget(announced& taken) noexcept;

  std::mutex stopping_mutex_;  // held by who joins the thread
  std::mutex mutex_;
  std::condition_variable announced_;
  // Guarded by mutex_:
  announced* first_ = nullptr;
  bool is_urgent_ = false;
  bool stopping_ = false;

  std::atomic<std::uint64_t>& acquisitions_;
  thread thread_;  // last: runs on the members above
};

}  // namespace offgil::python
