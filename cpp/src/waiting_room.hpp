// waiting_room.hpp - threads that wait for a job to come back.
#pragma once

#include <mutex>
#include <optional>
#include <vector>

#include "clock.hpp"
#include "completion_flag.hpp"

namespace offgil {

// Where threads sleep until a flag is set; one room per pool. Thread-safe. Only wait() blocks.
//
// A worker that waits here without a limit is of no use until the flag is set. When that would be the last
// one, and each waits for a flag that is not set, then nothing is left to set any of them: the wait is
// refused. The other workers' flags are looked at, so that one who is about to go on does not count.
class waiting_room {
 public:
  explicit waiting_room(unsigned workers) noexcept : workers_(workers) {}
  waiting_room(const waiting_room&) = delete;
  waiting_room& operator=(const waiting_room&) = delete;

  enum class end { flag_is_set, out_of_time, interrupted, deadlock };

  // `interrupted`: a signal handler has run on this thread.
  end wait(completion_flag& flag, bool on_worker, std::optional<clock::time_point> until);

  // Wakes who waits for this flag; to be called by who sets it and finds completion_flag::wait wished for.
  void wake(const completion_flag& flag) noexcept;

  // A worker that waits for a flag by means of its own, for as long as this lives.
  class absence;

 private:
  struct guest;

  bool would_be_the_last(const guest& worker) const noexcept;
  bool remove(const guest& gone) noexcept;

  const unsigned workers_;
  std::mutex mutex_;
  std::vector<guest*> guests_;  // guarded by mutex_
};

struct waiting_room::guest {
  const completion_flag* flag;
  bool occupies_worker;  // for as long as it takes
  void (*wake)(guest& sleeper) noexcept;
};

class waiting_room::absence {
 public:
  absence(waiting_room& room, const completion_flag& flag);
  ~absence();
  absence(const absence&) = delete;
  absence& operator=(const absence&) = delete;

  bool is_deadlock() const noexcept { return is_deadlock_; }

 private:
  waiting_room& room_;
  guest self_;
  bool is_deadlock_ = false;
};

}  // namespace offgil
