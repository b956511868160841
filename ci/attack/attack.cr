# What Crystal's runtime leans on: fibers whose stacks hold the only references, channels, finalizers, weak references, closures,
# buffers that grow, exceptions, interior pointers, callbacks from C. Says what it counted, which is the same each time; ends with 1 if
# an object is not what it was: attack SIZE.
require "weak_ref"

size = (ARGV[0]? || "200").to_i

class Node
  getter name : String, next : Node?
  @[AlwaysInline]
  def initialize(@name, @next); end

  def length : Int32
    n, at = 0, self
    while at
      abort "FAILED: #{at.name}" unless at.name.starts_with?("node ")
      n, at = n + 1, at.next
    end
    n
  end
end

class Counted
  @@finalized = Atomic(Int32).new(0)
  def self.finalized
    @@finalized.get
  end

  def initialize(@held : String, @tail : Array(Int32)); end

  def finalize
    # A finalizer may allocate, and what the object refers to is whole.
    abort "FAILED: finalizer" unless "#{@held} #{@tail.size}" == "held #{@tail[0]}"
    @@finalized.add(1)
  end
end

# A list that only the stack of a deep recursion holds, with the fiber suspended at the bottom.
def deep(depth : Int32, list : Node?, &block : Node? ->)
  if depth == 0
    Fiber.yield
    block.call(list)
  else
    deep(depth - 1, Node.new("node #{depth}", list), &block)
  end
end

done = Channel(Int32).new
size.times do |i|
  spawn do
    length = 0
    deep(20 + i % 50, nil) { |list| Fiber.yield; length = list.try(&.length) || 0 }
    done.send(length == 20 + i % 50 ? 1 : 0)
  end
end
puts "fibers with deep stacks: #{Array.new(size) { done.receive }.sum}"

# Objects on their way from fiber to fiber, in buffered channels and in none.
first, second = Channel(Node).new(8), Channel({Node, Array(String)}).new
spawn { (size * 20).times { |i| first.send Node.new("node #{i}", Node.new("node", nil).tap { |n| n }) }; first.close }
spawn do
  while node = first.receive?
    second.send({node, [node.name] * 3})
  end
  second.close
end
passed = 0
while pair = second.receive?
  abort "FAILED: channel" unless pair[1] == [pair[0].name] * 3
  passed += 1
end
puts "through channels: #{passed}"

# Finalizers: no more than there are objects, and of those that are kept none.
def make(n)
  n.times { |i| Counted.new("held", [i + 1] + [0] * i) if i < 50 }
end
kept = Array.new(10) { |i| Counted.new("held", [1]) }
20.times { make(50); GC.collect }
abort "FAILED: #{Counted.finalized} finalized" if Counted.finalized > 1000 || Counted.finalized < 500
puts "finalizers: #{kept.size} kept"

# Weak references: what is held is there, of the rest nearly all goes.
held = Array.new(size) { |i| "weak #{i} #{i * i}" }
weak = held.map { |s| WeakRef.new(s) }
def loose(n)
  Array.new(n) { |i| WeakRef.new("loose #{i} #{i * 3}") }
end
gone = loose(size)
def clobber(depth)
  buffer = StaticArray(UInt64, 512).new(0_u64)
  depth == 0 ? buffer[3] : buffer[1] &+ clobber(depth - 1)
end
clobber(20)
3.times { GC.collect }
weak.each_with_index { |w, i| abort "FAILED: weak #{i}" unless w.value == held[i] }
left = gone.count { |w| w.value }
abort "FAILED: #{left} of #{size} weak references still hold" if left > size // 4 + 8
gone.each_with_index { |w, i| (s = w.value) && s != "loose #{i} #{i * 3}" && abort "FAILED: loose" }
puts "weak references: #{weak.size} held"

# Buffers that grow, in all sizes, with other things allocated in between.
hash = {} of String => Array(Int32)
(size * 50).times { |i| (hash["key #{i % 997}"] ||= [] of Int32) << i }
hash.each { |k, v| v.each_with_index { |x, n| abort "FAILED: hash" unless "key #{x % 997}" == k && x // 997 == n } }
io = IO::Memory.new
(size * 50).times { |i| io << i << ',' }
text = io.to_s
abort "FAILED: text" unless text.split(',', remove_empty: true).map(&.to_i) == (0...size * 50).to_a
puts "grown: #{hash.size} keys, #{text.size} characters"

# An address within a large buffer is all that is left of it.
def inner(i)
  pointer = Pointer(Int64).malloc(5000) { |k| (k * i).to_i64 }
  pointer + 2500
end
inners = Array.new(50) { |i| inner(i) }
GC.collect
inners.each_with_index { |p, i| abort "FAILED: interior" unless p[100] == 2600_i64 * i && p[-2500] == 0 && p[2499] == 4999_i64 * i }
puts "interior pointers: #{inners.size}"

# Callbacks from C that allocate; closures; exceptions that carry objects over many frames.
numbers = Array.new(size * 5) { |i| (i * 7919) % 10007 }
LibC.qsort(numbers.to_unsafe.as(Void*), numbers.size, 4, ->(a : Void*, b : Void*) {
  "#{a.as(Int32*).value}".to_i <=> "#{b.as(Int32*).value}".to_i
})
lib LibC
  fun qsort(base : Void*, n : SizeT, bytes : SizeT, compare : Void*, Void* -> Int32)
end
abort "FAILED: qsort" unless numbers == numbers.sort
closures = Array.new(size) { |i| s = "closure #{i}"; ->{ s } }
GC.collect
closures.each_with_index { |c, i| abort "FAILED: closure" unless c.call == "closure #{i}" }
class Carrier < Exception
  getter node : Node
  def initialize(@node); super("carrier"); end
end
def throw(depth, list : Node?)
  raise Carrier.new(list.not_nil!) if depth == 0
  throw(depth - 1, Node.new("node #{depth}", list))
end
caught = 0
size.times do |i|
  throw(30, nil)
rescue e : Carrier
  GC.collect if i % 50 == 0
  caught += e.node.length
end
puts "closures: #{closures.size}, sorted: #{numbers.size}, caught: #{caught}"

# A child, while fibers wait.
output = `echo child`
puts output
