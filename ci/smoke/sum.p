@main[]
$sum(0)
^for[i](1;1000){^sum.inc($i)}
$sum
