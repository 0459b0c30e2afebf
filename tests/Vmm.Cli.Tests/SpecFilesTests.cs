using Vmm.Spec;

namespace Vmm.Cli.Tests;

public sealed class SpecFilesTests
{
    [Fact]
    public void Missing_files_and_folders_given_for_files_are_listed_by_field()
    {
        VmSpec spec = new()
        {
            Boot = new BootSpec { Kernel = "no/kernel", Initrd = Path.GetTempPath() },
            Disks = [new DiskSpec { Path = "no/disk" }]
        };
        Assert.Equal(["boot.kernel", "boot.initrd", "disks[0].path"], SpecFiles.Check(spec).Select(p => p.Path));
    }
}
