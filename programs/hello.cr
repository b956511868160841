# What the compiler compiles when the compiler itself is the program on our heap.
require "json"

record Point, x : Int32, y : Int32 do
  include JSON::Serializable
end

points = (0...5).map { |i| Point.new(i, i * i) }
puts points.to_json
puts points.sum(&.y)
