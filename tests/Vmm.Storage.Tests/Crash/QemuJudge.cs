using System.Text.Json;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests.Crash;

/// <summary>What QEMU's tools say of an image.</summary>
internal static class QemuJudge
{
    /// <summary>What <c>qemu-img check</c> found.</summary>
    /// <param name="Errors">Damage, or what could not be checked.</param>
    /// <param name="Leaks">Clusters that nobody uses.</param>
    /// <param name="Text">All it said.</param>
    public sealed record Found(int Errors, int Leaks, string Text);

    /// <summary>Runs commands of <c>qemu-io</c> on a qcow2 image; they have to succeed.</summary>
    public static void Io(string path, IEnumerable<string> commands)
    {
        string[] arguments = ["-t", "unsafe", "-f", "qcow2", .. commands.SelectMany(c => new[] { "-c", c }), path];
        (int code, string text) = QemuImg.Start("qemu-io", arguments);
        Assert.True(code == 0 && !text.Contains("failed", StringComparison.Ordinal), $"qemu-io {string.Join(' ', arguments)}: {text}");
    }

    public static Found Check(string path)
    {
        (int code, string text) = QemuImg.Try("check", "--output=json", "-f", "qcow2", path);
        if (code is not (0 or 2 or 3))
        {
            return new Found(1, 0, text);
        }

        using JsonDocument report = JsonDocument.Parse(text[text.IndexOf('{', StringComparison.Ordinal)..(text.LastIndexOf('}') + 1)]);
        int errors = Count(report, "corruptions") + Count(report, "check-errors");
        return new Found(code == 2 ? Math.Max(errors, 1) : errors, Count(report, "leaks"), text);
    }

    /// <summary>What differs between an image and a raw file; null when nothing does.</summary>
    public static string? Compare(string image, string raw)
    {
        (int code, string text) = QemuImg.Try("compare", "-f", "qcow2", "-F", "raw", image, raw);
        return code == 0 ? null : text;
    }

    private static int Count(JsonDocument report, string name) =>
        report.RootElement.TryGetProperty(name, out JsonElement count) ? count.GetInt32() : 0;
}
