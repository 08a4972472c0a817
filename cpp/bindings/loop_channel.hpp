// loop_channel.hpp - the way of jobs from one event loop to a pool, and back.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "bridge_job.hpp"
#include "clock.hpp"
#include "future_style.hpp"
#include "job_list.hpp"
#include "mailbox.hpp"
#include "owed_wake_up.hpp"
#include "running_loop.hpp"
#include "worker_pool.hpp"

namespace offgil::python {

namespace py = pybind11;

class pool_core;

// What a pool's channels count together. Guarded by the GIL.
struct delivery_counters {
  std::uint64_t batches = 0;              // drains that delivered something
  std::uint64_t dropped = 0;              // results whose loop was gone
  std::uint64_t inline_wakeups = 0;       // callbacks run inside a drain
  std::uint64_t forwarded_callbacks = 0;  // callbacks that went through the loop instead
};

// One per pool and event loop. Everything happens with the GIL held and, except where a name says threadsafe,
// on the loop's thread. Holds the loop weakly: a pool does not keep a loop alive.
class loop_channel final : public std::enable_shared_from_this<loop_channel> {
 public:
  loop_channel(std::shared_ptr<pool_core> core, std::shared_ptr<mailbox> box, py::handle loop);
  ~loop_channel();

  // Makes the loop watch the mailbox. Throws what the loop's add_reader() throws.
  void watch();

  // The loop, or none when it is gone.
  py::object loop() const;
  bool is_for(PyObject* other) const noexcept;
  bool loop_is_gone() const;

  // The same; where the loop's is_closed() raises, it is there.
  bool is_orphaned() const noexcept;

  // True: this channel's loop runs on the calling thread. False: ask asyncio.
  bool is_known_to_run() const noexcept { return token_ && token_.ptr() == running_loop_token(); }

  // What futures of the loop want over and over: the loop, a callable that returns it, and whether it is in
  // debug mode, which is looked up now and then. Borrowed, valid while a place is taken.
  PyObject* held_loop() const noexcept { return held_loop_.ptr(); }
  PyObject* loop_getter();
  bool loop_debugs() const noexcept { return loop_debugs_; }

  std::size_t in_flight() const noexcept { return in_flight_; }
  bool is_in_use() const noexcept { return in_flight_ != 0 || draining_ != 0; }
  pool_core& core() const noexcept { return *core_; }

  // A place in flight, taken before a job exists: making one runs Python code, during which another thread
  // may close the pool, and must not detach the channel. It keeps the channel alive. Taking one throws what
  // the loop's get_debug() throws.
  class place {
   public:
    explicit place(loop_channel& on) : on_(on) { on_.enter(); }
    ~place() {
      if (!is_taken_) on_.leave();
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;

    loop_channel& channel() const noexcept { return on_; }
    void is_taken() noexcept { is_taken_ = true; }  // by a job, until it is handed back

   private:
    loop_channel& on_;
    bool is_taken_ = false;
  };

  // Whether the pool has taken the job; only then it has a destination. The caller holds a place for it.
  // Throws what a signal handler raised inside the loop's call_soon(); then it has not.
  worker_pool::admission submit(bridge_job& j, worker_pool::when_full policy);

  // For a job that never goes through the run queue and ends when the pool is idle. False with an exception
  // set as above, the job handed over all the same.
  bool hand_back_when_idle(bridge_job& j) noexcept;

  // Takes back a job that its future no longer wants. Its arguments are released at once if it still waited.
  void withdraw(bridge_job& j) noexcept;

  // Delivers what has arrived: first every future of the batch is resolved, then their callbacks run, so that
  // a task which awaits its futures one after the other does not suspend again inside a batch. Goes on until
  // nothing has arrived or a millisecond is over; the rest follows in the loop's next turn. False with an
  // exception set that must leave the loop.
  //
  // Before the first callback runs, it is certain that the loop will call drain() again: whatever becomes of
  // this one, an exception may end it, or a callback may run the loop, nothing that has arrived is forgotten.
  bool drain() noexcept;
  void drain_soon_threadsafe() noexcept;

  // Calls `callback(argument)` in the loop's next turn, in `context`.
  bool call_soon(PyObject* callback, PyObject* argument, PyObject* context) noexcept;

  // Gives an exception that left a callback to the loop's handler, in the callback's context. False if it
  // must leave the loop.
  bool report_callback_error(PyObject* callback, PyObject* context, PyObject* future) noexcept;

  // The dispatcher's call: the loop is to drain, and where it is gone, nobody else drops what arrives.
  void on_announced() noexcept;

  // Releases jobs that came back for a loop that is gone. Any thread.
  void drop_arrived_threadsafe() noexcept;

  // Gives the mailbox up, which the loop then stops to watch. Nothing may be in flight. Any thread.
  void detach_threadsafe() noexcept;

 private:
  worker_pool::wake_up wake_up_for(const bridge_job& j);
  void flush_wake_up() noexcept;
  enum class pause { none, out_of_time, error };
  pause deliver(clock::time_point until) noexcept;
  bool resolve_some(clock::time_point until) noexcept;
  bool fall_asleep() noexcept;
  bool call_again() noexcept;
  void end(bridge_job& j) noexcept;
  void drain_later() noexcept;
  void on_unwatched() noexcept;
  void drop(job_list& from, bool is_counted) noexcept;
  std::shared_ptr<mailbox> give_mailbox_up() noexcept;
  void ask_to_unwatch(mailbox& box) const noexcept;
  void enter();
  void leave() noexcept;
  bool look_whether_loop_debugs() noexcept;

  // The core keeps its channels as well: the two live until the channel is detached or its loop is gone.
  std::shared_ptr<pool_core> core_;
  const unsigned number_;  // for a trace
  std::shared_ptr<mailbox> mailbox_;
  py::object loop_reference_;  // weak
  py::object drain_callable_;  // these two hold the channel weakly: the loop must not keep it
  py::object flush_callable_;
  py::object context_;  // an empty one, in which the loop calls them: not that of the first submit

  // These hold the loop, so that they are kept only while something is in flight, whose futures do so anyway.
  py::object token_;  // see running_loop_token()
  py::object held_loop_;
  py::object loop_getter_;

  job_list arrived_;   // taken from the mailbox
  job_list resolved_;  // callbacks pending
  std::size_t in_flight_ = 0;
  std::uint64_t delivered_ = 0;
  owed_wake_up owed_;
  unsigned draining_ = 0;            // more than one where a callback runs the loop
  bool is_called_ = false;           // the loop will call drain(), or the one that runs once more
  bool flush_is_scheduled_ = false;  // as far as is known: see drain()
  bool loop_debugs_ = false;
};

// To be called once, before the first channel is made.
void prepare_loop_channels();

}  // namespace offgil::python
