/* Reads of a past moment. Committer 0 adds 1 to X and to Y in one commit, committer 1 likewise; so both are half of
 * clock.now at each moment, and a snapshot must find exactly that. In the end nothing is kept.
 */

#define SNAPSHOTS
#ifndef READERS
#define READERS 1
#endif
#define RESTART goto restart
#include "memory.pml"
#include "objects.pml"
#include "snapshots.pml"

#ifndef ROUNDS
#define ROUNDS 2
#endif

byte done;

inline forget() { d_step { forget_objects(); quick = false; latest = 0 } }

proctype Committer(byte me) {
  OBJECT_LOCALS;
  SNAPSHOT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds < ROUNDS ->
     rv = LOAD(NOW);
     read_object(X);
     put[X] = got + 1;
     read_object(Y);
     assert(got + 1 == put[X]);
     put[Y] = got + 1;
     commit_objects();
     rounds = rounds + won;
     forget()
  :: else -> break
  od;
  done++
}

proctype Snapshot(byte me; byte number) {
  byte rv;
  byte cell;
  byte got;
  begin_snapshot(number);
  if
  :: read_old(X); assert(got == rv / 2); read_old(Y); assert(got == rv / 2)
  :: read_old(Y); assert(got == rv / 2); read_old(X); assert(got == rv / 2)
  fi;
  end_snapshot(number);
  d_step { rv = 0; cell = 0; got = 0 };
  done++
}

init {
  atomic {
    fresh = 3;
    mem[X] = 1;
    mem[Y] = 2;
    run Committer(0);
    run Committer(1);
    run Snapshot(2, 0);
#if READERS > 1
    run Snapshot(3, 1);
#endif
  };
  done == 2 + READERS;
  assert(mem[NOW] == 4 * ROUNDS && cell_value[mem[X]] == 2 * ROUNDS && cell_value[mem[Y]] == 2 * ROUNDS);
  assert(kept == 0)
}
