// dispatcher.hpp - the threads that bring completions to Python code nobody else would bring them to.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>

#include "clock.hpp"
#include "signal_mask.hpp"
#include "thread.hpp"

namespace offgil::python {

// Somebody who announces himself to a dispatcher, from any thread and without the GIL, and is called back
// with the GIL. Outlives the dispatcher's threads.
class announced {
 public:
  virtual ~announced() = default;
  virtual void on_dispatch() noexcept = 0;

  // Asked from time to time after on_dispatch(), without the GIL, until the answer is complete: what that has
  // called may never happen, since an exception may hit an event loop between taking a call from its list and
  // making it. `none`, for too long: on_dispatch() is called again.
  enum class answer { none, partial, complete };
  virtual answer look_for_answer() noexcept { return answer::complete; }

 private:
  friend class dispatcher;
  announced* next_ = nullptr;  // guarded by the dispatcher's mutex, like the others
  bool is_announced_ = false;
  announced* next_unanswered_ = nullptr;
  bool is_unanswered_ = false;
  unsigned in_vain_ = 0;  // looks
};

// The callback channel: workers announce what has completions, without the GIL; a thread takes the GIL once
// for all that have been announced by then. One dispatcher per pool, whose thread starts with the first
// announcement. announce() is for any thread.
//
// What is brought may run Python code that blocks, and that may wait for what stands behind it. So one thread
// leads, and while it calls such code, another one stands by. It asks for the GIL where calls are known to be
// long, or not known, and more is to be brought; or where it sees the leader in the same call for too long.
// If it gets it while the call goes on, it leads in the other's place, beginning with what that had in hand.
// The relieved one, when its call is over, stands by. Who has stood by in vain for a while ends: a dispatcher
// that has nothing to do, or brings nothing that could block, has one thread.
class dispatcher {
 public:
  // At most `most_threads` calls may block at once, but for one. All threads are called <name>-gil, also in
  // Python, and have that `mask`, and a stack of the size that is current as they start. `acquisitions`
  // counts the times that one takes the GIL.
  dispatcher(const std::string& name, unsigned most_threads, const signal_mask& mask,
             const std::atomic<std::size_t>& stack_size, std::atomic<std::uint64_t>& acquisitions);
  ~dispatcher() { stop(); }
  dispatcher(const dispatcher&) = delete;
  dispatcher& operator=(const dispatcher&) = delete;

  // How long one that has been called may take to answer.
  static constexpr std::chrono::milliseconds patience{100};

  // `soon`: within some 20 ms, together with whatever comes until then.
  enum class urgency { now, soon };
  // False: no thread has started, and none can. The announcement waits for the next one, which tries again.
  bool announce(announced& ready, urgency how = urgency::now) noexcept;

  // Not where no thread has started. Who starts it then announces for all who came here.
  void announce_if_started(announced& ready, urgency how) noexcept;

  // Starts the first thread, if none has been. False where it cannot start.
  bool start() noexcept;
  bool has_started() const noexcept { return has_started_.load(std::memory_order_relaxed); }

  // While one lives, `soon` is within some 1 ms: its owner waits for the last of what comes.
  class haste {
   public:
    explicit haste(dispatcher& of) noexcept;
    ~haste();
    haste(const haste&) = delete;
    haste& operator=(const haste&) = delete;

   private:
    dispatcher& of_;
  };

  // Inside on_dispatch() of `caller`, each time before it calls Python code that may block. `is_long`: for
  // all that is known. With the GIL.
  void begin_call(announced& caller, bool is_long, bool is_last) noexcept;

  // Whether another thread has taken the place of the calling one, and on_dispatch() has to return: it is
  // called there. With the GIL.
  bool is_relieved() const noexcept;

  // Lets the threads end when they have brought what has been announced; announcements that come later go
  // nowhere.
  void let_end() noexcept;

  // How many batches have been taken so far.
  std::uint64_t batches() noexcept;

  // Waits until what had been announced when there were so many batches has been brought, and its calls have
  // returned. What has been announced since need not have been. False on timeout. Call without the GIL.
  bool wait_until_brought(std::uint64_t batches, std::chrono::nanoseconds at_most) noexcept;

  // let_end(), and waits for the threads. False on timeout. Call without the GIL, like the next.
  bool stop_within(std::chrono::nanoseconds at_most) noexcept;

  // The same without a limit, and joins the threads. Idempotent.
  void stop() noexcept;

  bool is_on_own_thread() const noexcept;

 private:
  struct member {
    explicit member(const dispatcher& its) noexcept : of(its) {}

    const dispatcher& of;
    bool is_relieved = false;                 // guarded by the GIL
    bool has_ended = false;                   // guarded by the mutex; the last that the thread does with it
    std::optional<std::uint64_t> held_up_in;  // of a relieved one, the batch; guarded by the mutex
    std::optional<thread> handle;
  };

  bool start_first() noexcept;
  bool add(announced& ready, urgency how) noexcept;
  void start_thread();
  void run(member& self) noexcept;
  void lead(member& self) noexcept;
  bool wait_for_announcements() noexcept;
  announced* next() noexcept;
  void link(announced& ready) noexcept;
  void await_answer(announced& called) noexcept;
  void call_unanswered_again() noexcept;
  void take_batch() noexcept;
  bool stand_by(member& self) noexcept;
  bool watch(std::unique_lock<std::mutex>& lock, member& self) noexcept;
  void want_relief() noexcept;
  bool take_over(std::optional<std::uint64_t> call, member& self) noexcept;
  unsigned standing_by() const noexcept;

  const std::string name_;
  const unsigned most_threads_;
  const signal_mask mask_;
  const std::atomic<std::size_t>& stack_size_;
  std::atomic<std::uint64_t>& acquisitions_;
  // Counts the calls. The leader writes, without order: who stands by looks only whether it moves.
  std::atomic<std::uint64_t> calls_{0};
  std::atomic<bool> has_started_{false};

  std::mutex stopping_mutex_;  // held by who joins the threads
  std::mutex mutex_;           // never held by who asks for the GIL
  std::condition_variable announced_;
  std::condition_variable over_;
  std::condition_variable ended_;
  std::condition_variable brought_;
  // Guarded by mutex_:
  announced* first_ = nullptr;
  announced* first_unanswered_ = nullptr;
  clock::time_point next_look_{};  // at those
  bool is_urgent_ = false;
  bool is_bringing_ = false;   // a batch
  std::uint64_t batches_ = 0;  // taken
  bool stopping_ = false;
  bool is_over_ = false;  // and all has been brought
  unsigned in_haste_ = 0;
  unsigned alive_ = 0;     // threads
  unsigned relieved_ = 0;  // of them, those whose call goes on
  member* leader_ = nullptr;
  announced* batch_ = nullptr;    // what the leader is to call
  announced* in_hand_ = nullptr;  // in whose name it calls Python code; written with the GIL as well
  bool is_in_long_call_ = false;
  bool relief_is_wanted_ = false;
  std::list<member> members_;  // last: they run on the members above

  static thread_local member* mine_;
};

}  // namespace offgil::python
