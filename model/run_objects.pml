/* Variables alone. Committer 0 adds 1 to X and to Y, committer 1 adds 8 to Y: so Y % 8 == X at every moment. */

#define RESTART goto restart
#include "memory.pml"
#include "objects.pml"

#ifndef ROUNDS
#define ROUNDS 2
#endif

byte done;

proctype Committer(byte me) {
  OBJECT_LOCALS;
  byte rounds;
restart:
  skip;
  forget_objects();
  do
  :: rounds < ROUNDS ->
     rv = LOAD(NOW);
     if
     :: me == 0 ->
        read_object(X);
        put[X] = got + 1
     :: else
     fi;
     read_object(Y);
     assert(me || (got + 1) % 8 == put[X]);
     put[Y] = (me == 0 -> got + 1 : got + 8);
     commit_objects();
     rounds = rounds + won;
     forget_objects()
  :: else -> break
  od;
  done++
}

proctype Reader(byte me) {
  OBJECT_LOCALS;
  byte x;
restart:
  skip;
  d_step { forget_objects(); x = 0 };
  rv = LOAD(NOW);
  if
  :: read_object(X); x = got; read_object(Y); assert(got % 8 == x)
  :: read_object(Y); x = got % 8; read_object(X); assert(got == x)
  fi;
  d_step { forget_objects(); x = 0 }
}

init {
  byte c;
  atomic {
    fresh = 3;
    mem[X] = 1;
    mem[Y] = 2;
    run Committer(0);
    run Committer(1);
    run Reader(2);
#ifdef TWO_READERS
    run Reader(3);
#endif
  };
  done == 2;
  assert(cell_value[mem[X]] == ROUNDS && cell_value[mem[Y]] == 9 * ROUNDS && mem[NOW] == 4 * ROUNDS)
}
