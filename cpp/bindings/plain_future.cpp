// plain_future.cpp - an asyncio.Future with a job beside it: what is right, in the simplest way.
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "errors.hpp"
#include "future_style.hpp"
#include "loop_channel.hpp"
#include "names.hpp"
#include "outcome.hpp"

namespace offgil::python {
namespace {

struct plain_job : bridge_job {
  // What the future's done-callback has, as the job may be gone when it is called.
  struct link {
    plain_job* job;
  };

  py::object future;
  std::shared_ptr<link> own = std::make_shared<link>(link{this});

  ~plain_job() {
    own->job = nullptr;
    discard_payload();
    let_go_of_kind();
  }
};

// True also if the user has ended the future himself.
bool call(const py::object& future, PyObject* method, PyObject* argument) noexcept {
  PyObject* const done = PyObject_CallMethodObjArgs(future.ptr(), method, argument, nullptr);
  Py_XDECREF(done);
  return done != nullptr || clear_if_done_already();
}

// Notices, one turn of the loop late, that the future was cancelled or ended by its user.
void withdraw_when_done(plain_job& j) {
  j.future.attr("add_done_callback")(py::cpp_function([link = j.own](const py::object&) {
    if (link->job == nullptr || link->job->destination == nullptr) return;
    if (auto* const channel = static_cast<mailbox*>(link->job->destination)->owner)
      channel->withdraw(*link->job);
  }));
}

class plain_style final : public future_style {
 public:
  bridge_job* create(loop_channel& channel) noexcept override {
    return guarded<bridge_job*>(nullptr, [&]() -> bridge_job* {
      auto made = std::make_unique<plain_job>();
      made->future = channel.loop().attr("create_future")();
      withdraw_when_done(*made);
      return made.release();
    });
  }

  PyObject* future_of(bridge_job& j) const noexcept override {
    return static_cast<plain_job&>(j).future.ptr();
  }

  bool resolve(bridge_job& j) noexcept override {
    const py::object& future = static_cast<plain_job&>(j).future;
    if (guarded(true, [&] { return future.attr("done")().cast<bool>(); })) return PyErr_Occurred() == nullptr;
    const auto of_job = outcome::for_loop(j);
    if (of_job.is_cancelled()) return call(future, names::get().cancel, nullptr);
    if (of_job.value() != nullptr) return call(future, names::get().set_result, of_job.value());
    return call(future, names::get().set_exception, of_job.exception());
  }

  bool run_callbacks(bridge_job&, loop_channel&) noexcept override { return true; }

  void release(bridge_job& j) noexcept override {
    std::default_delete<plain_job>()(&static_cast<plain_job&>(j));
  }
};

}  // namespace

future_style& plain_futures() noexcept {
  static plain_style style;
  return style;
}

}  // namespace offgil::python
