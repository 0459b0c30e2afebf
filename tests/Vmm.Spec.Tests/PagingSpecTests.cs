using System.Text.Json;
using Vmm.Memory;

namespace Vmm.Spec.Tests;

/// <summary>The resident limit of a spec.</summary>
public sealed class PagingSpecTests
{
    private const string Boot = "boot: {kernel: /k}\n";

    [Fact]
    public void Memory_is_a_size_or_an_object_with_one()
    {
        VmSpec plain = Read("memory: 1GiB");
        Assert.Equal((ByteSize.GiB(1), null, ByteSize.GiB(1)), (plain.Memory, plain.Paging, plain.ResidentLimit));
        VmSpec spec = Read("memory: {size: 1GiB, resident: 25%, swap: ./auto, weight: 200}");
        Assert.Equal(
            new PagingSpec { Resident = MemoryPortion.OfPercent(25), Swap = "/home/./auto", Weight = 200 }, spec.Paging);
        Assert.Equal((ByteSize.GiB(1), ByteSize.MiB(256)), (spec.Memory, spec.ResidentLimit));
        Assert.Equal(plain, Read("memory: {size: 1GiB}") with { Boot = plain.Boot, Disks = plain.Disks, Nets = plain.Nets,
            Devices = plain.Devices, Shares = plain.Shares });
    }

    [Theory]
    [InlineData("memory: {resident: 128MiB}", 128)]
    [InlineData("memory: {resident: 50%, swap: auto}", 256)]
    [InlineData("memory: {size: 256MiB, resident: 100%}", 256)]
    [InlineData("memory: {size: 256MiB, resident: 256MiB}", 256)]
    [InlineData("memory: {size: 256MiB, resident: 64MiB}", 64)]
    [InlineData("memory: {size: 256MiB, resident: 512MiB}\nmaxMemory: 1GiB", 512)]
    [InlineData("memory: {resident: 25%}\nnuma: {vnodes: [{cpus: 0, memory: 512MiB}, {memory: 512MiB}]}", 256)]
    public void The_limit_is_a_size_or_a_part_of_what_it_starts_with(string text, int mebibytes)
    {
        VmSpec spec = Read(text);
        Assert.Equal(ByteSize.MiB((ulong)mebibytes), spec.ResidentLimit);
        Assert.Null(spec.Paging!.Swap);
    }

    [Theory]
    [InlineData("memory: {size: 1GiB, resident: 1%}", "memory.resident", "1% of 1GiB is 10484KiB, expected at least 16MiB")]
    [InlineData("memory: {size: 1GiB, resident: 15MiB}", "memory.resident", "15MiB, expected at least 16MiB")]
    [InlineData("memory: {size: 1GiB, resident: 2GiB}", "memory.resident", "2GiB, more than the VM's 1GiB")]
    [InlineData("memory: {size: 1GiB, resident: 101%}", "memory.resident", "101%, expected 1% to 100%")]
    [InlineData("memory: {size: 1GiB, resident: 67108865}", "memory.resident", "67108865B is not a multiple of 4KiB")]
    [InlineData("memory: {size: 1GiB, resident: half}", "memory.resident", "\"half\", expected a size such as 512MiB, or a percentage")]
    [InlineData("memory: {size: 1GiB, resident: 25 %}", "memory.resident", "\"25 %\", expected a size such as 512MiB, or a percentage")]
    [InlineData("memory: {size: 1GiB, swap: auto}", "memory.resident", "is missing")]
    [InlineData("memory: {size: 1GiB, resident: 25%, weight: 0}", "memory.weight", "expected a number from 1 to 10000")]
    [InlineData("memory: {size: 1GiB, resident: 25%, weight: 10001}", "memory.weight", "expected a number from 1 to 10000")]
    [InlineData("memory: {size: 1GiB, resident: 25%, swap: ''}", "memory.swap", "is empty: leave it out or name a folder")]
    [InlineData("memory: {size: 1MiB}", "memory.size", "1MiB, expected 2MiB to 16TiB")]
    [InlineData("memory: {szie: 1GiB}", "memory.szie", "unknown field; did you mean size?")]
    [InlineData("memory: [1GiB]", "memory", "expected a size such as 512MiB")]
    public void What_is_wrong_is_named_with_its_place(string text, string path, string message)
    {
        SpecProblem problem = Assert.Single(Assert.Throws<SpecException>(() => Read(text)).Problems);
        Assert.Equal(path, problem.Path);
        Assert.Contains(message, problem.Message, StringComparison.Ordinal);
        Assert.Equal(2, problem.Line);
    }

    [Theory]
    [InlineData("numa: {vnodes: [{cpus: 0, memory: 1GiB, pageSize: 2MiB}]}", "numa.vnodes[0].pageSize", "huge pages")]
    [InlineData("nets: [{tap: t0}, {tap: t1, vhost: on}]", "nets[1].vhost", "vhost-net")]
    [InlineData("shares: [{path: /srv}]", "shares[0]", "virtiofsd")]
    public void What_reads_guest_memory_past_the_pager_is_refused_beside_a_limit_and_taken_without(string text, string path, string why)
    {
        Read("memory: 1GiB\n" + text);
        SpecProblem problem = Assert.Single(
            Assert.Throws<SpecException>(() => Read("memory: {size: 1GiB, resident: 25%}\n" + text)).Problems);
        Assert.Equal(path, problem.Path);
        Assert.Contains("does not go with memory.resident: ", problem.Message, StringComparison.Ordinal);
        Assert.Contains(why, problem.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_network_device_that_leaves_the_choice_does_without_the_kernel_beside_a_limit()
    {
        VmSpec free = Read("memory: 1GiB\nnets: [{tap: t}]"), limited = Read("memory: {size: 1GiB, resident: 25%}\nnets: [{tap: t}]");
        Assert.Equal(VhostUse.Auto, PagingValidation.Paged(free, free.Nets[0]).Vhost);
        Assert.Equal(VhostUse.Off, PagingValidation.Paged(limited, limited.Nets[0]).Vhost);
    }

    [Fact]
    public void It_travels_to_the_worker_and_a_spec_without_one_says_nothing_of_it()
    {
        VmSpec spec = Read("memory: {size: 1GiB, resident: 25%, swap: /s, weight: 7}");
        VmSpec? read = VmSpecJson.TryRead(VmSpecJson.Write(spec), out string problem);
        Assert.Equal("", problem);
        Assert.Equal(spec.Paging, read!.Paging);
        VmSpec size = spec with { Paging = new PagingSpec { Resident = MemoryPortion.Of(new ByteSize(77_594_624)) } };
        Assert.Equal(size.Paging, VmSpecJson.TryRead(VmSpecJson.Write(size), out _)!.Paging);
        Assert.False(VmSpecJson.Write(spec with { Paging = null }).TryGetProperty("paging", out _));
        foreach (string bad in new[] { "{\"resident\":25}", "{\"resident\":\"x\"}", "{\"resident\":\"1%\"}", "{}", "{\"resident\":null}" })
        {
            using JsonDocument paging = JsonDocument.Parse(bad);
            string json = VmSpecJson.Write(spec).GetRawText().Replace(
                "\"paging\":{\"resident\":\"25%\",\"swap\":\"/s\",\"weight\":7}", "\"paging\":" + bad, StringComparison.Ordinal);
            using JsonDocument document = JsonDocument.Parse(json);
            Assert.Null(VmSpecJson.TryRead(document.RootElement, out problem));
            Assert.NotEqual("", problem);
        }
    }

    [Theory]
    [InlineData("memory: 1GiB # all of it\nrng: true\n", "memory: {size: 1GiB, resident: 30%} # all of it\nrng: true\n")]
    [InlineData("memory: {size: 1GiB, resident: 25%, weight: 5}\n", "memory: {size: 1GiB, weight: 5, resident: 30%}\n")]
    [InlineData("memory: {size: 1GiB, swap: \"/a b\"}\n", null)] // not sound before
    [InlineData("memory:\n  size: 1GiB\n  resident: 25% # a quarter\n", "memory:\n  size: 1GiB\n  resident: 30% # a quarter\n")]
    [InlineData("memory:\n  size: 1GiB\n  # nothing yet\nrng: true\n", "memory: {size: 1GiB, resident: 30%}\nrng: true\n")]
    [InlineData("rng: true", "rng: true\nmemory: {resident: 30%}\n")]
    public void A_program_changes_the_limit_and_leaves_the_rest(string before, string? after)
    {
        if (after is null)
        {
            Assert.Throws<SpecException>(() => SpecEdit.SetResident(Boot + before, null, MemoryPortion.OfPercent(30)));
            return;
        }

        Assert.Equal(Boot + after, SpecEdit.SetResident(Boot + before, null, MemoryPortion.OfPercent(30)));
    }

    [Fact]
    public void A_limit_that_the_VM_cannot_have_is_no_change()
    {
        SpecException refused = Assert.Throws<SpecException>(
            () => SpecEdit.SetResident(Boot + "memory: 1GiB\n", null, MemoryPortion.Of(ByteSize.GiB(2))));
        Assert.Contains("2GiB, more than the VM's 1GiB", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_schema_has_both_forms()
    {
        using JsonDocument schema = JsonDocument.Parse(SpecSchema.Json());
        JsonElement[] forms = [.. schema.RootElement.GetProperty("properties").GetProperty("memory").GetProperty("oneOf").EnumerateArray()];
        Assert.Equal("string", forms[0].GetProperty("type")[0].GetString());
        Assert.Equal(
            ["size", "resident", "swap", "weight"], forms[1].GetProperty("properties").EnumerateObject().Select(field => field.Name));
    }

    [Fact]
    public void The_swap_file_may_take_all_memory_and_a_tenth() =>
        Assert.Equal(ByteSize.MiB(1100), PagingSpec.SwapLimit(Read("memory: {size: 500MiB, resident: 25%}\nmaxMemory: 1000MiB")));

    private static VmSpec Read(string text) => SpecReader.Read(Boot + text + "\n", "spec", "/home");
}
