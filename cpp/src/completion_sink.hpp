// completion_sink.hpp - where the engine hands jobs back.
#pragma once

namespace offgil {

struct job;

// Gets every job that names it as its destination, exactly once, whatever happened to the job. Workers may be
// inside push() after the job is out of the engine's hands: a sink outlives the threads, not only its jobs.
class completion_sink {
 public:
  virtual ~completion_sink() = default;

  // Any thread, without any lock of the engine. A worker that has just run the job in a lane is still inside
  // that lane.
  virtual void push(job& j) noexcept = 0;
};

}  // namespace offgil
