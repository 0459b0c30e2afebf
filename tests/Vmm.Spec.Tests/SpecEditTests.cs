using FsCheck.Fluent;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Spec.Tests;

/// <summary>Entries that a program puts into the text of a spec, or takes out of it.</summary>
public sealed class SpecEditTests
{
    private const string Head = "boot: {kernel: /k}\n";

    [Fact]
    public void A_disk_is_replaced_and_its_neighbours_and_their_comments_stay()
    {
        const string before = "name: a\nboot:\n  kernel: /k\ndisks:\n  - path: /a # first\n  - path: /b\n    serial: x\n"
            + "  - path: /c # last\n# end\n";
        string after = SpecEdit.ReplaceDisk(before, null, 1, SpecReader.Read(before, "t").Disks[1] with { Path = "/new" })!;
        Assert.Equal(["/a", "/new", "/c"], SpecReader.Read(after, "t").Disks.Select(disk => disk.Path));
        Assert.Equal("x", SpecReader.Read(after, "t").Disks[1].Serial);
        Assert.Contains("  - path: /a # first\n", after, StringComparison.Ordinal);
        Assert.EndsWith("  - path: /c # last\n# end\n", after, StringComparison.Ordinal);
        string flow = "name: a\nboot:\n  kernel: /k\ndisks: [{path: /a}]\n";
        Assert.Null(SpecEdit.ReplaceDisk(flow, null, 0, SpecReader.Read(flow, "t").Disks[0] with { Path = "/new" }));
        Assert.Null(SpecEdit.ReplaceDisk(before, null, 3, SpecReader.Read(before, "t").Disks[0]));
    }

    [Fact]
    public void A_list_is_made_and_goes_again_with_its_last_entry()
    {
        string more = SpecEdit.Add(Head, null, new DiskSpec { Path = "/a" })!;
        Assert.Equal(Head + "disks:\n  - {path: \"/a\"}\n", more);
        Assert.Equal(Head, SpecEdit.RemoveDisk(more, null, 0));
        Assert.Equal(Head + "nets:\n  - {tap: \"tap0\"}\n", SpecEdit.Add(Head.TrimEnd('\n'), null, new NetSpec { Tap = "tap0" }));
        Assert.Equal(
            Head + "disks:\n  - {path: \"/a\"}\nrng: true\n",
            SpecEdit.Add(Head + "disks: []\nrng: true\n", null, new DiskSpec { Path = "/a" }));
    }

    [Theory]
    [InlineData("disks: [{path: /x}]\n")]
    [InlineData("disks: [{path: /x},\n  {path: /y}]\n")]
    [InlineData("disks:\n  -\n    path: /x\n")]
    [InlineData("{boot: {kernel: /k}, disks: [{path: /x}]}\n")]
    public void A_text_that_cannot_be_changed_by_lines_is_left_alone(string text)
    {
        string whole = text[0] == '{' ? text : Head + text;
        Assert.Null(SpecEdit.Add(whole, null, new DiskSpec { Path = "/a" }));
    }

    [Fact]
    public void A_change_that_makes_the_spec_unsound_says_why()
    {
        SpecException e = Assert.Throws<SpecException>(() => SpecEdit.Add(Head, null, new DiskSpec { Path = "/a", QueueSize = 100 }));
        Assert.Contains("queueSize", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Any_disks_and_nets_come_and_go_and_the_rest_of_the_text_stays()
    {
        FsCheck.Check.One(FsCheck.Config.QuickThrowOnFailure.WithMaxTest(300), Prop.ForAll<int, int, string>((seed, from, path) =>
        {
            Random random = new(seed);
            string[] layouts =
            [
                "disks:\n- path: /x\n- path: /y # why\n  readOnly: true\n",
                "disks:\n    - path: /x\n\n    # two\n    - {path: /y}\n\n# end\n", "# none\n"
            ];
            string text = "# top\n" + Head + layouts[Math.Abs(from % layouts.Length)] + (random.Next(2) == 0 ? "name: n # last\n" : "");
            DiskSpec disk = new()
            {
                Path = "/new" + new string([.. (path ?? "").Where(c => !char.IsSurrogate(c) && c is not ('\0' or '\ufeff'))]),
                ReadOnly = random.Next(2) == 0,
                Serial = random.Next(2) == 0 ? "S #1: \"x\"" : null,
                Queues = random.Next(1, 5),
                QueueSize = 1 << random.Next(2, 11),
                Cache = random.Next(2) == 0 ? DiskCache.Direct : DiskCache.Buffered,
                Vnode = random.Next(2) == 0 ? 0 : null,
                Limits = random.Next(2) == 0 ? new LimitsSpec { Bandwidth = ByteSize.MiB(7), Operations = 9 } : null,
            };
            VmSpec before = SpecReader.Read(text, "t");
            string more = SpecEdit.Add(text, null, disk) ?? throw new InvalidOperationException("not added to " + text);
            VmSpec with = SpecReader.Read(more, "t");
            Assert.Equal(before.Disks.Append(disk), with.Disks);
            string less = SpecEdit.RemoveDisk(more, null, before.Disks.Count)
                ?? throw new InvalidOperationException("not taken from " + more);
            Assert.Equal(text, less);
            if (before.Disks.Count > 0)
            {
                int gone = random.Next(before.Disks.Count);
                Assert.Equal(before.Disks.Where((_, i) => i != gone), SpecReader.Read(SpecEdit.RemoveDisk(text, null, gone)!, "t").Disks);
            }
        }));
    }
}
