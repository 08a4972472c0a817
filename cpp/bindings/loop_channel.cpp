// loop_channel.cpp - the way of jobs from one event loop to a pool, and back.
#include "loop_channel.hpp"

#include <pybind11/eval.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "errors.hpp"
#include "names.hpp"
#include "pool_core.hpp"

namespace offgil::python {
namespace {

// How long one drain may keep the loop from its other business.
constexpr std::chrono::milliseconds time_budget{1};
// Callbacks between two looks at the clock.
constexpr unsigned callbacks_per_look = 16;
// Futures that are resolved before the first of their callbacks runs; and at most so many between two looks,
// or one where to convert a result takes long.
constexpr unsigned resolved_at_once = 1024;
constexpr unsigned resolved_per_look = 8;
constexpr std::chrono::microseconds long_conversion{20};

// (loop, callback). With a frame of Python code, of which our threads have none: uvloop in debug mode wants
// one on 3.15.
PyObject* call_threadsafe = nullptr;

bridge_job& as_bridge(job& j) noexcept { return static_cast<bridge_job&>(j); }

// The context that Python code of this thread runs in, left or entered for as long as one of these lives.
class context_left {
 public:
  context_left() noexcept : left_(py::reinterpret_borrow<py::object>(PyThreadState_Get()->context)) {
    if (!left_ || PyContext_Exit(left_.ptr()) == 0) return;
    PyErr_Clear();  // the thread's own, which nobody has entered
    left_ = py::object();
  }
  ~context_left() {
    if (left_ && PyContext_Enter(left_.ptr()) != 0) PyErr_Clear();
  }
  context_left(const context_left&) = delete;
  context_left& operator=(const context_left&) = delete;

 private:
  py::object left_;
};

class context_entered {
 public:
  explicit context_entered(PyObject* context) : context_(context) {
    if (PyContext_Enter(context) != 0) throw py::error_already_set();
  }
  ~context_entered() {
    if (PyContext_Exit(context_) != 0) PyErr_Clear();
  }
  context_entered(const context_entered&) = delete;
  context_entered& operator=(const context_entered&) = delete;

 private:
  PyObject* const context_;
};

}  // namespace

void prepare_loop_channels() {
  call_threadsafe =
      py::eval("lambda loop, call: loop.call_soon_threadsafe(call)", py::dict()).release().ptr();
}

loop_channel::loop_channel(std::shared_ptr<pool_core> core, std::shared_ptr<mailbox> box, py::handle loop)
    : core_(std::move(core)),
      number_(core_->next_loop_number()),
      mailbox_(std::move(box)),
      loop_reference_(py::weakref(loop)) {
  mailbox_->owner = this;
}

loop_channel::~loop_channel() {
  if (const auto box = give_mailbox_up()) ask_to_unwatch(*box);
}

// The next owner must find it asleep: a drain that ran out of time, or dropped what had arrived for a loop
// that is gone, has left it attended, and nobody would wake him.
std::shared_ptr<mailbox> loop_channel::give_mailbox_up() noexcept {
  if (!mailbox_) return nullptr;
  mailbox_->owner = nullptr;
  mailbox_->let_only_watch();
  mailbox_->fall_asleep();
  return std::exchange(mailbox_, nullptr);
}

// A loop that watches the mailbox is called, and finds that it has no owner any more: see watch().
void loop_channel::ask_to_unwatch(mailbox& box) const noexcept {
  if (box.is_watched() && !core_->engine().was_left_behind_by_fork()) box.ring();
}

// What the loop calls keeps the descriptor open for as long as the loop watches it, and ends that itself: an
// exception meanwhile leaves the descriptor readable, so that it is called again. Only the loop holds what it
// watches with: when that dies, the loop has been closed or collected.
void loop_channel::watch() {
  const auto drain_or_unwatch = [weak = weak_from_this(), box = mailbox_] {
    const auto self = weak.lock();
    if (self && self->mailbox_) {
      if (!self->drain()) throw py::error_already_set();
    } else if (box->is_watched()) {
      running_loop().attr("remove_reader")(box->fd());
      box->clear_wakeup();
    }
  };
  drain_callable_ = py::cpp_function(drain_or_unwatch);
  flush_callable_ = py::cpp_function([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self) return;
    self->flush_is_scheduled_ = false;
    self->flush_wake_up();
  });
  context_ = py::reinterpret_steal<py::object>(PyContext_New());
  if (!context_) throw py::error_already_set();
  if (!mailbox_->is_watched()) return;
  const context_entered empty(context_.ptr());  // the loop copies the current one
  const std::shared_ptr<void> end_of_watch(nullptr, [weak = weak_from_this()](void*) {
    if (const auto self = weak.lock()) self->on_unwatched();
  });
  const py::cpp_function on_readable([drain_or_unwatch, end_of_watch] { drain_or_unwatch(); });
  loop().attr("add_reader")(mailbox_->fd(), on_readable);
}

py::object loop_channel::loop() const {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* target = nullptr;
  if (PyWeakref_GetRef(loop_reference_.ptr(), &target) <= 0) return py::none();
  return py::reinterpret_steal<py::object>(target);
#else
  return py::reinterpret_borrow<py::object>(PyWeakref_GetObject(loop_reference_.ptr()));
#endif
}

bool loop_channel::is_for(PyObject* other) const noexcept { return loop().ptr() == other; }

bool loop_channel::loop_is_gone() const {
  const py::object at = loop();
  return at.is_none() || py::bool_(at.attr("is_closed")());
}

bool loop_channel::is_orphaned() const noexcept {
  const bool gone = guarded(false, [this] { return loop_is_gone(); });
  PyErr_Clear();
  return gone;
}

// ---- to the pool ----

void loop_channel::enter() {
  if (in_flight_++ != 0) return;
  held_loop_ = loop();
  token_ = py::reinterpret_borrow<py::object>(running_loop_token());
  if (look_whether_loop_debugs()) return;
  const py::error_already_set raised;
  leave();
  throw py::error_already_set(raised);
}

PyObject* loop_channel::loop_getter() {
  static PyMethodDef definition{"get_loop", [](PyObject* self, PyObject*) { return Py_NewRef(self); },
                                METH_NOARGS, "Return the event loop the Future is bound to."};
  if (!loop_getter_)
    loop_getter_ = py::reinterpret_steal<py::object>(PyCFunction_New(&definition, held_loop()));
  if (!loop_getter_) throw py::error_already_set();
  return loop_getter_.ptr();
}

// The last one out lets go of the loop, and of the mailbox if there will be no next one.
void loop_channel::leave() noexcept {
  if (--in_flight_ != 0) return;
  token_ = py::object();
  held_loop_ = py::object();
  loop_getter_ = py::object();
  if (draining_ == 0 && core_->engine().is_closed()) detach_threadsafe();
}

worker_pool::admission loop_channel::submit(bridge_job& j, worker_pool::when_full policy) {
  const auto wake = wake_up_for(j);
  j.destination = mailbox_.get();
  const auto answer = core_->engine().submit(j, policy, wake);
  const bool taken = answer == worker_pool::admission::accepted || answer == worker_pool::admission::in_line;
  if (!taken) j.destination = nullptr;
  return answer;
}

// Short jobs wait for others, at most until the end of the drain or of the loop's turn.
worker_pool::wake_up loop_channel::wake_up_for(const bridge_job& j) {
  if (owed_.is_due_with(j.kind->estimate, in_flight_)) return worker_pool::wake_up::now;
  if (draining_ == 0 && !flush_is_scheduled_) {
    if (!call_soon(flush_callable_.ptr(), nullptr, context_.ptr())) throw py::error_already_set();
    flush_is_scheduled_ = true;
  }
  return worker_pool::wake_up::may_wait;
}

void loop_channel::flush_wake_up() noexcept {
  if (owed_.pay()) core_->engine().flush_wake_up();
}

bool loop_channel::hand_back_when_idle(bridge_job& j) noexcept {
  j.destination = mailbox_.get();
  core_->engine().notify_when_idle(j);
  if (mailbox_->is_watched() || !core_->is_joined()) return true;
  is_called_ = false;  // the dispatcher may be gone: nobody else would make good for a call that got lost
  return call_again();
}

void loop_channel::withdraw(bridge_job& j) noexcept {
  if (j.destination == nullptr || core_->engine().was_left_behind_by_fork()) return;
  if (core_->engine().cancel(j)) j.discard_payload();
}

// ---- from the pool ----

bool loop_channel::drain() noexcept {
  if (!mailbox_) return true;                                  // detached meanwhile
  if (core_->engine().was_left_behind_by_fork()) return true;  // the parent's loop will do it
  const auto alive = shared_from_this();
  const context_left so_that_the_loop_can_call_again;
  mailbox_->note_answer();
  is_called_ = mailbox_->is_watched();  // until fall_asleep() its descriptor is readable
  flush_is_scheduled_ = false;          // if that call is still to come, another one does no harm
  ++draining_;
  const auto delivered_before = delivered_;
  const auto begin = clock::now();
  const pause reason = look_whether_loop_debugs() ? deliver(begin + time_budget) : pause::error;
  if (delivered_ != delivered_before) {
    ++core_->counters.batches;
    if (core_->is_traced())
      core_->note_delivery({number_, begin, clock::now(), delivered_ - delivered_before});
  }
  --draining_;
  if (reason == pause::out_of_time) return call_again();
  if (reason == pause::error) {
    py::object raised = take_raised();
    if (!call_again()) PyErr_Clear();
    restore_raised(std::move(raised));
    return false;
  }
  if (!is_in_use() && core_->engine().is_closed()) detach_threadsafe();
  return true;
}

loop_channel::pause loop_channel::deliver(clock::time_point until) noexcept {
  unsigned since_look = 0;
  for (bool is_first = true;; is_first = false) {
    if (resolved_.empty() && !arrived_.empty() && !is_first && clock::now() >= until) {
      flush_wake_up();
      return pause::out_of_time;
    }
    if (resolved_.empty() && !resolve_some(until)) return pause::error;
    // Runs Python code, meanwhile the exit hook may have dropped all.
    if (!resolved_.empty() && !call_again()) return pause::error;
    if (resolved_.empty()) {
      flush_wake_up();
      if (fall_asleep()) return pause::none;
      continue;
    }
    bridge_job& j = as_bridge(resolved_.pop_front());
    const bool goes_on = core_->futures().run_callbacks(j, *this);
    end(j);
    if (!goes_on) return pause::error;
    if (++since_look < callbacks_per_look) continue;
    since_look = 0;
    if (clock::now() >= until) {
      flush_wake_up();
      return pause::out_of_time;
    }
  }
}

// Stops when the time is up, unless it went elsewhere, as on a busy machine: callbacks find what arrived
// together done together. A loop in debug mode takes longer for each, and is not there to be quick.
bool loop_channel::resolve_some(clock::time_point until) noexcept {
  if (arrived_.empty()) arrived_ = mailbox_->take();
  py::object raised;
  auto last_look = until - time_budget;
  unsigned before_look = loop_debugs_ ? resolved_at_once : 1;
  unsigned between_looks = 1;
  std::optional<clock::duration> cpu_time_at_look;  // since the time is up
  for (unsigned n = 0; n < resolved_at_once && !arrived_.empty() && !raised; ++n) {
    bridge_job& j = as_bridge(arrived_.pop_front());
    if (!core_->futures().resolve(j)) raised = take_raised();
    j.discard_payload();
    resolved_.push_back(j);
    if (--before_look != 0) continue;
    const auto now = clock::now();
    const bool is_late = now >= until;
    if (is_late) {
      const auto cpu_time = cpu_time_of_this_thread();
      if (cpu_time_at_look && cpu_time - *cpu_time_at_look >= long_conversion) break;
      cpu_time_at_look = cpu_time;
    }
    const bool took_long = is_late || now - last_look > between_looks * long_conversion;
    before_look = between_looks = took_long ? 1 : std::min(2 * between_looks, resolved_per_look);
    last_look = now;
  }
  if (!raised) return true;
  restore_raised(std::move(raised));
  return false;
}

// False: there is something to do, it has arrived just now. The descriptor is cleared before that is certain,
// so that no wake-up is lost.
bool loop_channel::fall_asleep() noexcept {
  if (!mailbox_->is_empty()) return false;
  if (mailbox_->is_watched()) {
    mailbox_->clear_wakeup();
    is_called_ = false;
  }
  return mailbox_->fall_asleep();
}

// False with an exception set, which may be a signal handler's.
bool loop_channel::look_whether_loop_debugs() noexcept {
  if (!held_loop_) return true;
  PyObject* const answer = PyObject_CallMethodNoArgs(held_loop(), names::get().get_debug);
  const int truth = answer == nullptr ? -1 : PyObject_IsTrue(answer);
  Py_XDECREF(answer);
  loop_debugs_ = truth > 0;
  return truth >= 0;
}

void loop_channel::end(bridge_job& j) noexcept {
  ++delivered_;
  j.destination = nullptr;
  j.let_go_of_kind();
  core_->futures().release(j);
  leave();
}

// The queue stays attended meanwhile, so that workers need not wake anybody. False with an exception set that
// a signal handler raised inside call_soon(), which is Python code; the loop will call all the same.
bool loop_channel::call_again() noexcept {
  if (is_called_ || !mailbox_) return true;
  is_called_ = true;
  if (mailbox_->is_watched()) {
    mailbox_->ring();
    return true;
  }
  if (call_soon(drain_callable_.ptr(), nullptr, context_.ptr())) {
    if (core_->is_joined()) drain_later();
    return true;
  }
  py::object raised = take_raised();
  const bool is_gone = guarded(true, [&] { return loop_is_gone(); });  // then see purge()
  PyErr_Clear();
  if (is_gone) return true;
  if (core_->is_joined())
    drain_soon_threadsafe();
  else
    mailbox_->ring();
  restore_raised(std::move(raised));
  return false;
}

// A second call, where no dispatcher is left to see that the first one got lost.
void loop_channel::drain_later() noexcept {
  guarded(0, [this] {
    const context_entered empty(context_.ptr());
    loop().attr("call_later")(std::chrono::duration<double>(mailbox::patience).count(), drain_callable_);
    return 0;
  });
  PyErr_Clear();  // the loop is closed
}

void loop_channel::drain_soon_threadsafe() noexcept {
  if (mailbox_ && mailbox_->is_watched()) return;  // its descriptor calls until that has been done
  if (!drain_callable_) return;                    // a call for the mailbox's last owner
  const py::object at = loop();
  Py_XDECREF(PyObject_CallFunctionObjArgs(call_threadsafe, at.ptr(), drain_callable_.ptr(), nullptr));
  PyErr_Clear();  // the loop is closed or gone
}

bool loop_channel::call_soon(PyObject* callback, PyObject* argument, PyObject* context) noexcept {
  const py::object at = loop();
  std::array<PyObject*, 4> arguments{at.ptr(), callback};
  std::size_t n = 2;
  if (argument != nullptr) arguments[n++] = argument;
  const std::size_t positional = n;
  if (context != nullptr) arguments[n] = context;
  PyObject* const handle =
      PyObject_VectorcallMethod(names::get().call_soon, arguments.data(), positional,
                                context == nullptr ? nullptr : names::get().context_keyword);
  Py_XDECREF(handle);
  return handle != nullptr;
}

bool loop_channel::report_callback_error(PyObject* callback, PyObject* in, PyObject* future) noexcept {
  // As asyncio's Handle.
  for (PyObject* const leaves : {PyExc_SystemExit, PyExc_KeyboardInterrupt})
    if (PyErr_ExceptionMatches(leaves) != 0) return false;
  return guarded(false, [&] {
    const py::object raised = take_raised();
    const context_entered of_callback(in);
    py::dict context;
    context["message"] = py::str("Exception in callback {!r}").format(py::handle(callback));
    context["exception"] = raised;
    context["future"] = py::reinterpret_borrow<py::object>(future);
    loop().attr("call_exception_handler")(context);
    return true;
  });
}

// ---- the end ----

// The loop may have been told to watch no more, and still run.
void loop_channel::on_unwatched() noexcept {
  const py::error_scope of_whoever_closes_it;
  if (!is_in_use() || !mailbox_ || core_->engine().was_left_behind_by_fork()) return;
  if (is_orphaned()) core_->drop_what_comes_for(*mailbox_);
}

void loop_channel::on_announced() noexcept {
  if (is_orphaned())
    core_->purge();
  else
    drain_soon_threadsafe();
}

// The queue is asleep afterwards: who drops what comes later must be called.
void loop_channel::drop_arrived_threadsafe() noexcept {
  drop(resolved_, false);  // these have reached their futures
  do {
    drop(arrived_, true);
    // Without a mailbox it was detached meanwhile.
    if (mailbox_) arrived_ = mailbox_->take();
  } while (!arrived_.empty() || (mailbox_ && !mailbox_->fall_asleep()));
}

void loop_channel::drop(job_list& from, bool is_counted) noexcept {
  while (!from.empty()) {
    bridge_job& j = as_bridge(from.pop_front());
    j.discard_payload();
    if (is_counted) ++core_->counters.dropped;
    end(j);
  }
}

void loop_channel::detach_threadsafe() noexcept {
  const auto alive = shared_from_this();
  core_->remove(*this);
  const auto box = give_mailbox_up();
  if (!box || !box->is_watched()) return;
  const bool is_done = guarded(false, [&] {
    const py::object running = py::module_::import("asyncio").attr("_get_running_loop")();
    if (running.is_none() || !is_for(running.ptr())) return false;
    running.attr("remove_reader")(box->fd());
    return true;
  });
  if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(drain_callable_.ptr());  // an interrupt
  if (!is_done) ask_to_unwatch(*box);
}

}  // namespace offgil::python
