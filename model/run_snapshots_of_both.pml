/* Reads of a past moment of both tiers. Thread 1 adds 1 to X and to element 0 in one commit; thread 0 adds 1 to Y, and
 * then to element 1. A snapshot must find X == element 0, and Y equal to element 1 or one more.
 */

#define SNAPSHOTS
#define READERS 1
#define BOTH
#define RESTART goto restart
#include "memory.pml"
#include "objects.pml"
#include "elements.pml"
#include "both.pml"
#include "snapshots.pml"

#ifndef ROUNDS
#define ROUNDS 1
#endif

byte done;

inline forget() { d_step { forget_objects(); forget_elements(); quick = false; latest = 0 } }

proctype Either(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  SNAPSHOT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds == 2 * ROUNDS -> break
  :: rounds < 2 * ROUNDS && !(rounds & 1) ->
     rv = LOAD(NOW);
     read_object(Y);
     put[Y] = got + 1;
     commit_objects();
     rounds = rounds + won;
     forget()
  :: rounds & 1 ->
     begin_elements();
     read_element(1);
     put[3] = got + 1;
     commit_elements();
     rounds = rounds + won;
     forget()
  od;
  done++
}

proctype Both(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
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
     join();
     read_joined(0);
     assert(got + 1 == put[X]);
     put[2] = got + 1;
     commit_both();
     rounds = rounds + won;
     forget()
  :: else -> break
  od;
  done++
}

proctype Snapshot(byte me; byte number) {
  byte rv;
  byte moment;
  byte sampled;
  byte cell;
  byte got;
  byte before;
  do
  :: begin_snapshot(number);
     if
     :: read_old(X); before = got; read_old_element(0); assert(got == before)
     :: read_old_element(0); before = got; read_old(X); assert(got == before)
     :: read_old(Y); before = got; read_old_element(1); assert(got == before || got + 1 == before)
     :: read_old_element(1); before = got; read_old(Y); assert(got == before || got == before + 1)
     fi;
     end_snapshot(number);
     break;
restart:                           /* an element has changed since */
     skip;
     end_snapshot(number);
     d_step { rv = 0; moment = 0; sampled = 0; cell = 0; got = 0; before = 0 }
  od;
  skip;
  d_step { rv = 0; moment = 0; sampled = 0; cell = 0; got = 0; before = 0 };
  done++
}

init {
  atomic {
    fresh = 3;
    mem[X] = 1;
    mem[Y] = 2;
#if BUFFER > 0
    run Memory();
#endif
    run Either(0);
    run Both(1);
    run Snapshot(2, 0);
  };
  done == 3;
  assert(mem[NOW] == 4 * ROUNDS && kept == 0)
}
