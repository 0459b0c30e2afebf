using System.Diagnostics;
using System.Text;
using Vmm.CommandLine.Seeds;
using Vmm.LifeCycle;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Spec.Seeds;

namespace Vmm.Run.Tests;

/// <summary>What a guest gets for its first start, and that nothing of it is told elsewhere.</summary>
public sealed class SeedTests : IDisposable
{
    private const string Key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExample ann@host";

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-seed-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("a", "x")]
    [InlineData("correct horse battery staple", "saltstring")]
    [InlineData("pässwörd", "0123456789./abcD")]
    [InlineData("0123456789012345678901234567890123456789012345678901234567890123456789", "toolongsalt")]
    public void A_password_is_hashed_as_openssl_hashes_it(string password, string salt)
    {
        ProcessStartInfo start = new("openssl", ["passwd", "-6", "-salt", salt, "-stdin"])
        { UseShellExecute = false, RedirectStandardInput = true, RedirectStandardOutput = true };
        using Process openssl = Process.Start(start)!;
        openssl.StandardInput.BaseStream.Write(Encoding.UTF8.GetBytes(password + "\n"));
        openssl.StandardInput.Close();
        Assert.Equal(openssl.StandardOutput.ReadToEnd().Trim(), PasswordHash.Of(password, salt));
        openssl.WaitForExit();
        Assert.NotEqual(PasswordHash.Of(password), PasswordHash.Of(password));
    }

    [Fact]
    public void Options_become_files_and_user_data_stays_as_it_is()
    {
        byte[] every = [.. Enumerable.Range(0, 256).Select(b => (byte)b)];
        List<string> problems = [];
        SeedContent content = new SeedWish
        {
            UserData = Make("u", every),
            NetworkConfig = Make("n", "version: 2\n"u8.ToArray()),
            SshKeys = [Make("k", Encoding.UTF8.GetBytes($"# mine\n{Key}\n{Key} \"quoted\"\n"))],
            Hostname = "web1.example",
            Password = true,
        }.ToContent(() => "secret", problems)!;
        Assert.Empty(problems);
        Dictionary<string, byte[]> files = content.Files("vm").ToDictionary(f => f.Name, f => f.Bytes, StringComparer.Ordinal);
        Assert.Equal(every, files["user-data"]);
        Assert.Equal("version: 2\n", Encoding.UTF8.GetString(files["network-config"]));
        string meta = Encoding.UTF8.GetString(files["meta-data"]), vendor = Encoding.UTF8.GetString(files["vendor-data"]);
        Assert.Matches("^instance-id: iid-[0-9a-f]{16}\nlocal-hostname: \"web1.example\"\npublic-keys:\n  - \"ssh-ed25519 ", meta);
        Assert.StartsWith("#cloud-config\npassword: \"$6$", vendor, StringComparison.Ordinal);
        Assert.DoesNotContain("secret", vendor, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_user_data_there_is_an_empty_configuration_and_the_vms_name()
    {
        SeedContent content = new SeedWish { SshKeys = [Make("k", Encoding.UTF8.GetBytes(Key))] }.ToContent(() => null, [])!;
        IReadOnlyList<(string Name, byte[] Bytes)> files = content.Files("web1");
        Assert.Equal(["user-data", "meta-data"], files.Select(f => f.Name));
        Assert.StartsWith("#cloud-config\n", Encoding.UTF8.GetString(files[0].Bytes), StringComparison.Ordinal);
        Assert.Contains("local-hostname: \"web1\"", Encoding.UTF8.GetString(files[1].Bytes), StringComparison.Ordinal);
        Assert.Equal(files[1].Bytes, content.Files("web1")[1].Bytes); // the same instance again
    }

    [Fact]
    public void What_is_wrong_is_named_without_its_content()
    {
        foreach ((SeedWish wish, string why) in new[]
        {
            (new SeedWish { SshKeys = [Make("p", "-----BEGIN OPENSSH PRIVATE KEY-----\nhidden\n"u8.ToArray())] }, "is a private key"),
            (new SeedWish { SshKeys = [Make("e", [])] }, "expected public keys"),
            (new SeedWish { SshKeys = [Make("x", "ssh-rsa hidden\n"u8.ToArray())] }, "expected public keys"),
            (new SeedWish { SshKeys = [Make("c", Encoding.UTF8.GetBytes(Key + "\u001b[0mhidden"))] }, "expected public keys"),
            (new SeedWish { UserData = Path.Combine(_folder, "none") }, "does not exist"),
            (new SeedWish { UserData = _folder }, "is a directory"),
            (new SeedWish { UserData = Make("l", new byte[(256 << 10) + 1]) }, "more than 256 KiB"),
            (new SeedWish { Hostname = "a b" }, "--hostname"), (new SeedWish { Password = true }, "--password"),
        })
        {
            List<string> problems = [];
            Assert.Null(wish.ToContent(() => null, problems));
            Assert.Contains(why, Assert.Single(problems), StringComparison.Ordinal);
            Assert.DoesNotContain("hidden", problems[0], StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Run_gives_the_guest_a_disk_that_is_memory()
    {
        byte[]? disk = null;
        DiskSpec? spec = null;
        StringWriter error = new();
        string kernel = Make("vmlinuz", [1]), userData = Make("u", "#cloud-config\nhidden: 1\n"u8.ToArray());
        int code = new RunApplication(
            (request, _, _, _) =>
            {
                spec = request.Spec.Disks.Single();
                disk = File.ReadAllBytes(spec.Path);
                return new RunResult(ExitReason.PowerOff);
            },
            TextWriter.Null, error).Execute(["run", "--no-serial-input", "--kernel", kernel, "--user-data", userData]);
        Assert.True(code == 0, error.ToString());
        Assert.True(spec!.ReadOnly);
        Assert.Equal((DiskFormat.Raw, DiskCache.Buffered), (spec.Format, spec.Cache));
        Assert.True(disk.AsSpan().IndexOf("hidden: 1"u8) > 0 && disk.AsSpan(16 * 2048 + 40, 6).SequenceEqual("cidata"u8));
        Assert.DoesNotContain("hidden", error.ToString(), StringComparison.Ordinal);
        Assert.Equal(2, new RunApplication((_, _, _, _) => new RunResult(ExitReason.PowerOff), TextWriter.Null, error).Execute(
            ["run", "--no-serial-input", "--kernel", kernel, "--user-data", userData, "--save-to", Path.Combine(_folder, "s")]));
        Assert.Contains("--save-to", error.ToString(), StringComparison.Ordinal);
    }

    private string Make(string name, byte[] bytes)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllBytes(path, bytes);
        return path;
    }
}
