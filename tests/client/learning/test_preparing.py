"""One step ahead and no further: what is prepared, in which order, and where an exception comes out."""

import threading

import pytest

from client.learning.preparing import one_ahead


def test_the_next_item_is_prepared_while_this_one_is_worked_on_and_no_further():
    begun = {number: threading.Event() for number in range(4)}

    def work(number):
        begun[number].set()
        return 10 * number

    for number, prepared in one_ahead(work, range(4)):
        assert prepared.take() == 10 * number
        if number < 3:
            assert begun[number + 1].wait(30)
        assert not any(begun[later].is_set() for later in range(number + 2, 4))


def test_an_exception_waits_for_its_turn_and_the_others_come_all_the_same():
    def work(number):
        if number == 1:
            raise MemoryError
        return number

    found = []
    for number, prepared in one_ahead(work, range(3)):
        if number == 1:
            with pytest.raises(MemoryError):
                prepared.take()
        else:
            found.append(prepared.take())
    assert found == [0, 2]


def test_preparation_is_by_another_thread_which_is_gone_afterwards():
    threads = set()
    for _, prepared in one_ahead(lambda _: threads.add(threading.current_thread()), range(3)):
        prepared.take()
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_nothing_to_prepare_is_nothing():
    assert list(one_ahead(str, [])) == []


def test_what_was_taken_is_kept_no_longer():
    for _, prepared in one_ahead(str, [1]):
        prepared.take()
        with pytest.raises(IndexError):
            prepared.take()
