namespace Vmm.Cpu.Tests;

/// <summary>A description outlives the process that made it.</summary>
public sealed class CpuDescriptionJsonTests
{
    [Fact]
    public void What_is_written_is_read_back()
    {
        CpuDescription host = Hosts.Everything(amd: true);
        CpuDescription read = CpuDescriptionJson.Read(CpuDescriptionJson.Write(host));
        Assert.Equal(host.Leaves, read.Leaves);
        Assert.Equal(host.Msrs, read.Msrs);
        Assert.Equal(("host", "AuthenticAMD", 46), (read.Model, read.Vendor, read.PhysicalAddressBits));
    }

    [Theory]
    [InlineData("", "no CPU description")]
    [InlineData("[]", "no CPU description")]
    [InlineData("{}", "no CPU description")]
    [InlineData("""{"version":2,"model":"host","cpuid":[],"msrs":[]}""", "version 2")]
    [InlineData("""{"version":1,"model":"host","cpuid":[{"leaf":"0x1"}],"msrs":[]}""", "no CPU description")]
    [InlineData("""{"version":1,"model":"host","cpuid":[],"msrs":[{"index":"0x1ffffffff","value":"0x0"}]}""", "no CPU description")]
    [InlineData("""{"version":1,"model":"host","cpuid":[],"msrs":[{"index":"12","value":"0x0"}]}""", "hexadecimal")]
    [InlineData("""{"version":1,"model":7,"cpuid":[],"msrs":[]}""", "no CPU description")]
    public void What_is_no_description_is_refused(string text, string because) =>
        Assert.Contains(
            because, Assert.Throws<InvalidDataException>(() => CpuDescriptionJson.Read(text)).Message, StringComparison.Ordinal);

    [Fact]
    public void A_leaf_that_is_there_twice_is_refused()
    {
        CpuDescription twice =
            new() { Model = "host", Leaves = [new CpuidLeaf(1, 0, false, 0, 0, 0, 0), new CpuidLeaf(1, 0, false, 1, 0, 0, 0)] };
        Assert.Throws<InvalidDataException>(() => CpuDescriptionJson.Read(CpuDescriptionJson.Write(twice)));
    }
}
