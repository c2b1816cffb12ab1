/* All of tram. */
#ifndef TRAM_H
#define TRAM_H

#include <tram/address.h>
#include <tram/bridge.h>
#include <tram/buffer.h>
#include <tram/channel.h>
#include <tram/connection.h>
#include <tram/custom.h>
#include <tram/datagram.h>
#include <tram/error.h>
#include <tram/executor.h>
#include <tram/fault.h>
#include <tram/future.h>
#include <tram/group.h>
#include <tram/inherit.h>
#include <tram/input.h>
#include <tram/limits.h>
#include <tram/loop.h>
#include <tram/memory.h>
#include <tram/message.h>
#include <tram/metrics.h>
#include <tram/output.h>
#include <tram/pair.h>
#include <tram/pipe.h>
#include <tram/protocol.h>
#include <tram/queue.h>
#include <tram/resolver.h>
#include <tram/run.h>
#include <tram/runtime.h>
#include <tram/sendfile.h>
#include <tram/server.h>
#include <tram/signal.h>
#include <tram/sock.h>
#include <tram/stats.h>
#include <tram/streams.h>
#include <tram/subprocess.h>
#include <tram/sync.h>
#include <tram/task.h>
#include <tram/time.h>
#include <tram/transport.h>
#include <tram/unix.h>
#include <tram/version.h>
#include <tram/wait.h>

#endif
