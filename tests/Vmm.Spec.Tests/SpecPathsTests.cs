using Vmm.Spec;

namespace Vmm.Spec.Tests;

public sealed class SpecPathsTests
{
    [Fact]
    public void Relative_paths_become_whole_and_the_rest_of_the_text_stays()
    {
        const string Text = """
            name: web1 # the shop
            boot:
              kernel: vmlinuz
              initrd: "in it.img"
            disks:
              - path: /srv/a.img
              - {path: 'data.qcow2', format: qcow2} # data

            """;
        string? whole = SpecPaths.MakeWhole(Text, "/vms/web1");
        Assert.Equal(
            Text.Replace("vmlinuz", "\"/vms/web1/vmlinuz\"", StringComparison.Ordinal)
                .Replace("\"in it.img\"", "\"/vms/web1/in it.img\"", StringComparison.Ordinal)
                .Replace("'data.qcow2'", "\"/vms/web1/data.qcow2\"", StringComparison.Ordinal),
            whole);
    }

    [Fact]
    public void A_text_that_lines_cannot_change_is_not_given_out() =>
        Assert.Null(SpecPaths.MakeWhole("name: web1\nboot:\n  kernel: >-\n    vmlinuz\n", "/vms/web1"));
}
