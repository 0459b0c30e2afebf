using Vmm.Cpu;
using Vmm.Cpu.Tests;
using Vmm.Daemon.Moves;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>A host that lacks what a guest has seen says so before the guest's memory comes.</summary>
public sealed class CpuOfferTests
{
    private static readonly CpuDescription s_all = Hosts.Everything(), s_few = Hosts.With(["fpu", "sse2"]);

    [Fact]
    public void What_is_missing_is_named_and_not_without_end()
    {
        string offered = CpuOffer.Write(new CpuSpec(), s_all)!;
        Assert.Null(CpuOffer.Missing(offered, s_all));
        string missing = CpuOffer.Missing(offered, s_few)!;
        Assert.Contains("the host has no ", missing, StringComparison.Ordinal);
        Assert.EndsWith(" more", missing, StringComparison.Ordinal);
        Assert.True(missing.Length < 1000);
    }

    [Fact]
    public void A_named_model_asks_for_what_it_shows_and_no_more()
    {
        string offered = CpuOffer.Write(new CpuSpec { Model = "x86-64-v1" }, s_all)!;
        CpuModel model = CpuModel.Find("x86-64-v1")!;
        Assert.Null(CpuOffer.Missing(offered, Hosts.With([.. model.Required.Concat(model.Optional).Select(feature => feature.Name)])));
        Assert.NotNull(CpuOffer.Missing(CpuOffer.Write(new CpuSpec { Model = "x86-64-v2" }, s_all), Hosts.With(["fpu", "sse2"])));
    }

    [Fact]
    public void Who_does_not_know_a_processor_refuses_none()
    {
        Assert.Null(CpuOffer.Write(new CpuSpec(), null));
        Assert.Null(CpuOffer.Missing(null, s_few));
        Assert.Null(CpuOffer.Missing(CpuOffer.Write(new CpuSpec(), s_all), null));
        Assert.Throws<InvalidDataException>(() => CpuOffer.Missing("[]", null));
    }
}
