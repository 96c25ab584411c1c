"""rbml beside other libraries and hand-written loops, on the same problems: ``make bench``.

A problem (``problems/``, one file per row of the table) is data, a network, and a number of inner steps. A contender
(``contenders/``, one file each) returns the same meta-gradient of it: the derivative of the mean query loss with
respect to every starting parameter and to the inner learning rate.
"""
