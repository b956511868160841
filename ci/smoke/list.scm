; Lists of a thousand pairs, all but one of which die.
(define (build i acc)
  (if (= i 0) (length acc) (build (- i 1) (cons i (if (= 0 (modulo i 1000)) '() acc)))))
(display (build 1000000 '()))
(newline)
(gc)
