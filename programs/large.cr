# A program for the compiler to compile: the compiler's own parser and formatter, and much of the standard library.
require "compiler/crystal/syntax"
require "compiler/crystal/tools/formatter"
require "http"
require "json"
require "yaml"
require "csv"
require "ini"
require "digest"
require "compress/gzip"
require "compress/zip"
require "option_parser"
require "big"
require "socket"
require "uuid"
require "oauth2"
require "spec/dsl"
require "benchmark"
require "levenshtein"
require "string_scanner"
require "ecr"
require "log"
require "mime"

record Entry, name : String, size : Int32, tags : Array(String), notes : Hash(String, Int64) do
  include JSON::Serializable
  include YAML::Serializable
end

source = "class Foo\n  def bar(x)\n  x.map { |y| y+1 }\n  end\nend\n"
puts Crystal.format(source)
entry = Entry.from_json(%({"name": "a", "size": 1, "tags": ["b"], "notes": {"c": 2}}))
puts entry.to_yaml, entry.to_json
puts CSV.parse("a,b\nc,d"), INI.parse("[a]\nb=c"), BigInt.new("123456789012345678901234567890") ** 7
io = IO::Memory.new
Compress::Gzip::Writer.open(io) { |gzip| gzip << "text" * 100 }
puts io.size, Digest::SHA256.hexdigest("x"), UUID.new("00000000-0000-4000-8000-000000000000")
client = HTTP::Client.new("localhost")
server = HTTP::Server.new([HTTP::ErrorHandler.new, HTTP::LogHandler.new, HTTP::CompressHandler.new, HTTP::StaticFileHandler.new(".")])
puts client.port, server.closed?, OAuth2::Client.new("localhost", "id", "secret").get_authorize_uri("scope")
puts Benchmark.measure { Levenshtein.distance("kitten", "sitting") }.total > -1, MIME.from_extension(".html", "")
