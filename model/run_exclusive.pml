/* Insistence. A long transaction of both tiers, which adds 16 to X, to Y and to element 0, is aborted by writers
 * again and again; after INSIST_AFTER aborts it runs while nobody else commits, and then it must not be aborted once
 * more. The writers commit so often that it would be.
 */

#define EXCLUSIVE
#define BOTH
#define RESTART goto restart
#include "memory.pml"
#include "objects.pml"
#include "elements.pml"
#include "both.pml"
#include "exclusive.pml"

#ifndef ROUNDS
#define ROUNDS 2
#endif

byte done;

inline forget() { d_step { forget_objects(); forget_elements() } }

proctype Variables(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds < ROUNDS ->
     rv = LOAD(NOW);
     read_object(X);
     put[X] = got + 1;
     commit_objects();
     rounds = rounds + won;
     forget()
  :: else -> break
  od;
  done++
}

proctype Elements(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds < ROUNDS ->
     begin_elements();
     read_element(0);
     put[2] = got + 1;
     commit_elements();
     rounds = rounds + won;
     forget()
  :: else -> break
  od;
  done++
}

proctype Elder(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte aborts;
  bool insists;
  goto begin;
restart:
  skip;
  forget();
  aborts++;
  assert(aborts <= INSIST_AFTER);
begin:
  if
#ifndef M_NEVER_INSIST
  :: aborts == INSIST_AFTER -> insists = true; become_exclusive()
#endif
  :: else
  fi;
  rv = LOAD(NOW);
  if
  :: read_object(X); put[X] = got + 16; join_exclusively(); read_joined(0); put[2] = got + 16
  :: join_exclusively(); read_joined(0); put[2] = got + 16; read_object(X); put[X] = got + 16
  fi;
  commit_both();
  if
  :: won
  :: else -> RESTART
  fi;
  if
  :: insists -> end_exclusive()
  :: else
  fi;
  d_step { forget(); aborts = 0; insists = false };
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
    run Elements(0);
    run Elder(1);
    run Variables(2);
  };
#if BUFFER > 0
  done == 3 && pending[0] == 0 && pending[1] == 0;
#else
  done == 3;
#endif
  assert(cell_value[mem[X]] == 16 + ROUNDS && mem[VALUE(0)] == 16 + ROUNDS && !(mem[WORD] & FLAGS))
}
