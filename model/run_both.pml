/* Both tiers. Thread 0 commits to both: it adds 1 to X and to element 0. Thread 1 commits to variables, adding 1 to
 * Y, and then to elements, adding 1 to element 1 and 8 to element 0. So at every moment, element 0 % 8 == X, element
 * 0 / 8 == element 1, and Y is element 1 or one more.
 */

#define BOTH
#define RESTART goto restart
#include "memory.pml"
#include "objects.pml"
#include "elements.pml"
#include "both.pml"

#ifndef ROUNDS
#define ROUNDS 1
#endif

byte done;

inline forget() { d_step { forget_objects(); forget_elements() } }

proctype Both(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds < ROUNDS ->
     rv = LOAD(NOW);
     if
     :: read_object(X); put[X] = got + 1; join(); read_joined(0); assert((got + 1) % 8 == put[X]); put[2] = got + 1
     :: join(); read_joined(0); put[2] = got + 1; read_object(X); assert(put[2] % 8 == got + 1); put[X] = got + 1
     fi;
     commit_both();
     rounds = rounds + won;
     forget()
  :: else -> break
  od;
  done++
}

proctype Either(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
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
     read_element(0);
     put[2] = got + 8;
     read_element(1);
     assert(put[2] / 8 == got + 1);
     put[3] = got + 1;
     commit_elements();
     rounds = rounds + won;
     forget()
  od;
  done++
}

proctype Reader(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte x;
restart:
  skip;
  d_step { forget(); x = 0 };
  rv = LOAD(NOW);
  if
  :: read_object(X); x = got; join(); read_joined(0); assert(got % 8 == x);
     x = got / 8; read_object(Y); assert(got == x || got == x + 1)
  :: join(); read_joined(1); x = got; read_object(Y); assert(got == x || got == x + 1)
  :: read_object(Y); x = got; join(); read_joined(1); assert(got == x || got + 1 == x);
     x = got; read_joined(0); assert(got / 8 == x); x = got % 8; read_object(X); assert(got == x)
  fi;
  d_step { forget(); x = 0 }
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
    run Reader(2);
  };
#if BUFFER > 0
  done == 2 && pending[0] == 0 && pending[1] == 0;
#else
  done == 2;
#endif
  assert(cell_value[mem[X]] == ROUNDS && cell_value[mem[Y]] == ROUNDS && mem[NOW] == 4 * ROUNDS);
  assert(mem[VALUE(0)] == 9 * ROUNDS && mem[VALUE(1)] == ROUNDS && mem[WORD] == STEP * 2 * ROUNDS)
}
