using Vmm.Spec;

namespace Vmm.Cli.Tests;

public sealed class DeviceFormTests
{
    [Fact]
    public void The_help_of_disk_and_net_names_what_their_entries_name()
    {
        Assert.Equal(RunArguments.DiskForm, SpecOption.Form("disks"));
        Assert.Equal(RunArguments.NetForm, SpecOption.Form("nets"));
    }
}
