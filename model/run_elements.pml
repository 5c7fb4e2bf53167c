/* Elements alone. Committer 0 adds 1 to both, committer 1 adds 8 to element 1: so element 1 % 8 == element 0. */

#define RESTART goto restart
#include "memory.pml"
#include "elements.pml"

#ifndef ROUNDS
#define ROUNDS 2
#endif

#define ATTEMPT byte got; byte sampled; bool stale; bool won; byte put[4]

byte done;

#ifdef IN_PLACE
#include "inplace.pml"
#endif

inline forget() {
  d_step { forget_elements(); got = 0; sampled = 0; stale = false; won = false; put[2] = 0; put[3] = 0 }
}

proctype Committer(byte me) {
  ATTEMPT;
  ELEMENT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds < ROUNDS ->
     begin_elements();
     if
     :: me == 0 ->
        read_element(0);
        put[2] = got + 1
     :: else
     fi;
     read_element(1);
     assert(me || (got + 1) % 8 == put[2]);
     put[3] = (me == 0 -> got + 1 : got + 8);
     commit_elements();
     rounds = rounds + won;
     forget()
  :: else -> break
  od;
  done++
}

proctype Reader(byte me) {
  ATTEMPT;
  ELEMENT_LOCALS;
  byte a;
restart:
  skip;
  d_step { forget(); a = 0 };
  begin_elements();
  if
  :: read_element(0); a = got; read_element(1); assert(got % 8 == a)
  :: read_element(1); a = got % 8; read_element(0); assert(got == a)
  fi;
  d_step { forget(); a = 0 }
}

init {
  atomic {
#if BUFFER > 0
    run Memory();
#endif
    run Committer(0);
#ifdef IN_PLACE
    run Group(1);
#else
    run Committer(1);
#endif
    run Reader(2);
  };
#if BUFFER > 0
  done == 2 && pending[0] == 0 && pending[1] == 0;
#else
  done == 2;
#endif
#ifdef IN_PLACE
  assert(mem[VALUE(0)] == ROUNDS && mem[VALUE(1)] == ROUNDS + 16 && mem[WORD] == STEP * (ROUNDS + 1))
#else
  assert(mem[VALUE(0)] == ROUNDS && mem[VALUE(1)] == 9 * ROUNDS && mem[WORD] == STEP * 2 * ROUNDS)
#endif
}
