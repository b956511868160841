\version "2.24.0"
{ c' d' e' f' g' a' b' c'' \bar "|." }
