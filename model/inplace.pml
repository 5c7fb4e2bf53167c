/* A group of rows that is run on the elements themselves (stm/compiled/inplace.py): two rows add 8 to element 1 each; a
 * row between them writes to both elements, and raises.
 */

inline write_in_place(i, value) {
  store(VERSION(i), word + STEP);
  store(VALUE(i), value)
}

proctype Group(byte me) {
  byte word;
  byte first;
  byte second;
  bool won;
  do                               /* take_clock */
  :: d_step { !(LOAD(WORD) & PUBLISHING) -> word = LOAD(WORD) };
     compare_and_swap(WORD, word, word | PUBLISHING);
     if
     :: won -> break
     :: else
     fi
  od;
  second = LOAD(VALUE(1));              /* read_in_place: nobody else publishes */
  write_in_place(1, second + 8);
  first = LOAD(VALUE(0));
  write_in_place(0, first + 3);
  second = LOAD(VALUE(1));
  write_in_place(1, second + 3);
#ifndef M_ROW_NOT_TAKEN_BACK
  store(VALUE(1), second);              /* restore: the versions stay */
  store(VALUE(0), first);
#endif
  second = LOAD(VALUE(1));
  write_in_place(1, second + 8);
  store(WORD, word + STEP);        /* give_clock */
  d_step { first = 0; second = 0; word = 0; won = false };
  done++
}
