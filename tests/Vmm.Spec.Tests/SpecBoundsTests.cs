using System.Diagnostics;
using System.Text;
using Vmm.Spec;

namespace Vmm.Spec.Tests;

/// <summary>
/// What a document costs, whatever it says: work, memory and what is reported go with its length, and end when nobody wants them.
/// </summary>
public sealed class SpecBoundsTests
{
    private const int Small = 64 << 10, Large = 1 << 20; // the largest body that vmmd takes
    private const long MostAllocated = 400L * Large;
    private const int MostReported = 200_000;

    private static readonly Dictionary<string, Func<int, string>> s_documents = new(StringComparer.Ordinal)
    {
        ["unknown keys"] = n => Many(n, i => $"k{i}: 1\n"),
        ["keys near known ones"] = n => Many(n, i => $"cpu{i % 10}{new string('s', 1 + (i % 50))}: 1\n"),
        ["one key again and again"] = n => Many(n, _ => "cpus: 1\n"),
        ["one long key"] = n => new string('k', n) + ": 1\n",
        ["keys of one long prefix"] = n => Many(n, i => new string('x', 1000) + i + ": 1\n"),
        ["empty vnodes"] = n => "numa:\n  vnodes:\n" + Many(n, _ => "  - {}\n"),
        ["vnodes of the same CPUs"] = n => "numa:\n  vnodes:\n" + Many(n, _ => "  - {cpus: 0-1023, memory: 4MiB}\n"),
        ["vnodes and a topology"] = n => "cpus: 254\ntopology: {threads: 254}\nnuma:\n  vnodes:\n"
            + string.Concat(Enumerable.Repeat("  - {cpus: 0-253, memory: 4MiB}\n", 64)) + Comment(n),
        ["a million CPU numbers"] = n => "numa:\n  vnodes:\n  - {cpus: \"" + string.Join(',', Enumerable.Range(0, n / 6)) + "\"}\n",
        ["one number again and again"] = n => "numa:\n  vnodes:\n  - {cpus: \"" + Many(n, _ => "1,") + "1\"}\n",
        ["empty disks"] = n => "disks:\n" + Many(n, _ => "- {}\n"),
        ["disks of one long path"] = n => "disks:\n" + string.Concat(Enumerable.Repeat($"- {{path: {new string('p', n / 24)}}}\n", 24)),
        ["empty nets"] = n => "nets:\n" + Many(n, _ => "- {}\n"),
        ["rows of distances"] = n => "numa:\n  vnodes: [{cpus: 0, memory: 4MiB}]\n  distances:\n" + Many(n, _ => "  - [1]\n"),
        ["one row of distances"] = n => "numa:\n  vnodes: [{cpus: 0, memory: 4MiB}]\n  distances: [[" + Many(n, _ => "1,") + "1]]\n",
        ["a giant plain scalar"] = n => "name: " + new string('a', n) + "\n",
        ["a giant number"] = n => "cpus: " + new string('9', n) + "\n",
        ["a giant size"] = n => "memory: " + new string('9', n) + "GiB\n",
        ["a giant word"] = n => "console: " + new string('s', n) + "\n",
        ["a giant quoted scalar"] = n => "name: \"" + Many(n, _ => "\\x41") + "\"\n",
        ["a giant literal scalar"] = n => "name: |\n" + Many(n, _ => "  a\n"),
        ["a giant folded scalar"] = n => "name: >\n" + Many(n, _ => "  a\n\n"),
        ["a plain scalar of many lines"] = n => "name: a\n" + Many(n, _ => "  a\n"),
        ["nested lists"] = n => "disks: " + new string('[', n),
        ["nested fields"] = n => "disks: " + Many(n, _ => "{a: "),
        ["nested block lists"] = n => Many(n, _ => "- "),
        ["question marks"] = n => Many(n, _ => "? "),
        ["anchors"] = n => Many(n, i => $"k{i}: &a{i} x\n"),
        ["aliases"] = n => "a: &a x\n" + Many(n, i => $"k{i}: *a\n"),
        ["laughs"] = _ => "a: &a [x,x,x,x,x,x,x,x,x]\n" + string.Concat(Enumerable.Range(0, 24)
            .Select(i => $"{(char)('b' + i)}: &{(char)('b' + i)} [{string.Join(',', Enumerable.Repeat("*" + (char)('a' + i), 9))}]\n")),
        ["one long anchor"] = n => "a: &" + new string('a', n) + " x\n",
        ["one long tag"] = n => "a: !<" + new string('a', n) + "> x\n",
        ["directives"] = n => Many(n, i => $"%X{i} a\n") + "--- a\n",
        ["documents"] = n => Many(n, _ => "---\n"),
        ["comments"] = Comment,
        ["one long comment"] = n => "# " + new string('c', n) + "\nname: a\n",
        ["empty lines"] = n => new string('\n', n) + "name: a\n",
        ["spaces"] = n => new string(' ', n) + "name: a\n",
        ["tabs"] = n => "name:" + new string('\t', n) + "a\n",
        ["carriage returns"] = n => "name: a" + new string('\r', n),
        ["values in a row"] = n => "disks: [" + Many(n, _ => "a,") + "]\n",
        ["pairs in a row"] = n => "disks: [" + Many(n, _ => "a: b,") + "]\n",
        ["quotes"] = n => Many(n, _ => "''") + "\n",
        ["colons"] = n => "name: " + new string(':', n) + "\n",
        ["dashes"] = n => new string('-', n) + "\n",
        ["zeros"] = n => new string('\0', n),
        ["surrogates"] = n => "name: \"" + new string('\ud800', n) + "\"\n",
        ["commas"] = n => "disks: [" + new string(',', n) + "]\n",
    };

    public static TheoryData<string> Names => [.. s_documents.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Any_document_costs_what_its_length_allows(string name)
    {
        Cost(name, Small / 16); // what is done once
        (long allocated, TimeSpan small, _) = Cost(name, Small);
        (allocated, TimeSpan large, int reported) = Cost(name, Large);
        Assert.True(allocated < MostAllocated, $"{name}: {allocated >> 20} MiB for a document of 1 MiB");
        Assert.True(reported < MostReported, $"{name}: {reported} characters of problems");
        // 16 times as long: linear is 16 times the work, pairs of things are 256 times.
        Assert.True(large < (80 * small) + TimeSpan.FromSeconds(1),
            $"{name}: {small.TotalMilliseconds} ms for 64 KiB, {large.TotalMilliseconds} ms for 1 MiB");
    }

    [Fact]
    public void The_first_hundred_problems_are_told_and_the_others_are_counted()
    {
        SpecException refused = Assert.Throws<SpecException>(
            () => SpecReader.Read(string.Concat(Enumerable.Range(0, 250).Select(i => $"k{i}: 1\n")), "t.yaml"));
        Assert.Equal(SpecException.MostProblems + 1, refused.Problems.Count);
        Assert.Equal("k0", refused.Problems[0].Path);
        Assert.Equal("t.yaml: 150 more problems are not shown", refused.Problems[^1].ToString());
        VmSpec many = new()
        {
            Cpus = 1,
            Boot = new BootSpec { Kernel = "k" },
            Numa = new NumaSpec { Vnodes = [.. Enumerable.Repeat(new VnodeSpec { Cpus = [5, 6, 7], HostNodes = [] }, 64)] }
        };
        Assert.Equal(SpecException.MostProblems + 1, SpecValidation.Validate(many).Count);
    }

    [Theory]
    [InlineData("numa:\n  vnodes: [LIST]", "{cpus: 0}", 64, "numa.vnodes")]
    [InlineData("disks: [LIST]", "{path: p}", SpecValidation.MaxDisks, "disks")]
    [InlineData("nets: [LIST]", "{tap: t}", SpecValidation.MaxNets, "nets")]
    [InlineData("numa: {vnodes: [{cpus: 0}], distances: [LIST]}", "[10]", 64, "numa.distances")]
    [InlineData("numa: {vnodes: [{cpus: 0}], latencies: [[LIST]]}", "10", 64, "numa.latencies[0]")]
    [InlineData("numa: {vnodes: [{cpus: 0}], bandwidths: [LIST]}", "[10]", 64, "numa.bandwidths")]
    public void A_list_of_more_than_there_can_be_is_one_problem(string text, string entry, int most, string path)
    {
        string list = string.Join(", ", Enumerable.Repeat(entry, most + 1));
        SpecException refused = Assert.Throws<SpecException>(
            () => SpecReader.Read("boot: {kernel: k}\n" + text.Replace("LIST", list, StringComparison.Ordinal), "t.yaml"));
        SpecProblem problem = Assert.Single(refused.Problems);
        Assert.Equal((path, $"{most + 1} entries, at most {most}"), (problem.Path, problem.Message));
    }

    [Fact]
    public void Nobody_waits_for_what_nobody_wants()
    {
        using CancellationTokenSource gone = new();
        gone.Cancel();
        Assert.Throws<OperationCanceledException>(() => SpecReader.Read("boot: {kernel: k}\n", "t.yaml", null, gone.Token));
    }

    private static (long Allocated, TimeSpan Cpu, int Reported) Cost(string name, int length)
    {
        string text = s_documents[name](length);
        int reported = 0;
        long before = GC.GetAllocatedBytesForCurrentThread(), begin = Stopwatch.GetTimestamp();
        try
        {
            _ = SpecReader.Read(text, "t.yaml");
        }
        catch (SpecException e)
        {
            reported = e.Message.Length;
        }

        return (GC.GetAllocatedBytesForCurrentThread() - before, Stopwatch.GetElapsedTime(begin), reported);
    }

    private static string Comment(int length) => "name: a\n" + Many(length, _ => "# c\n");

    private static string Many(int length, Func<int, string> piece)
    {
        StringBuilder text = new(length + 100);
        for (int i = 0; text.Length < length; i++)
        {
            text.Append(piece(i));
        }

        return text.ToString();
    }
}
